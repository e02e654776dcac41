"""What holds for every loss: a finite float32 scalar with finite gradients on degenerate input, and no state."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spnet import losses as L

Loss = Callable[[Tensor], Tensor]

# Each loss as a function of one (B, 6) tensor x; gates and probabilities come from softmax or sigmoid of it.
CASES: dict[str, Loss] = {
    "stage_classification": lambda x: L.stage_classification((x, x[:, :3]), torch.zeros(len(x)).long(), (0.2, 1.0)),
    "path_alignment-mse": lambda x: L.path_alignment((x[:, :2], x[:, 2:5]), (x[:, 1:3], x[:, 3:6])),
    "path_alignment-kl": lambda x: L.path_alignment((x[:, :2], x[:, 2:5]), (x[:, 1:3], x[:, 3:6]), form="kl"),
    "logit_alignment-mse": lambda x: L.logit_alignment((x, x), (x, -x), (0.2, 1.0), target="last"),
    "logit_alignment-kl": lambda x: L.logit_alignment((x, x), (x, -x), (0.2, 1.0), form="kl", temperature=3.0),
    "self_distillation": lambda x: L.self_distillation(x[:, :3], x[:, 3:]),
    "feature_evolution-within": lambda x: L.feature_evolution([(x[:, :2], x[:, 2:4], x[:, 4:])]),
    "feature_evolution-stage": lambda x: L.feature_evolution([x[:, :2], x[:, 2:4], x[:, 4:]], form="stage"),
    "feature_evolution-kl": lambda x: L.feature_evolution([x[:, :2], x[:, 2:4], x[:, 4:]], form="kl"),
    "target_rate": lambda x: L.target_rate(L.execution_rates([x[:, :2].softmax(1), x[:, 2:].softmax(1)]), 0.6),
    "cost_deviation": lambda x: L.cost_deviation(L.executed_blocks([x[:, :2].softmax(1), x[:, 2:].softmax(1)]), 1.0),
    "cost_deviation_of_mean": lambda x: L.cost_deviation_of_mean(L.executed_blocks([x.softmax(1)]), 1.0),
    "consistency": lambda x: L.consistency(L.path_vectors([x, x]), 1, 0.1),
    "diversity": lambda x: L.diversity(L.path_vectors([x, x]), 1, 2.0),
    "contrastive_relation": lambda x: L.contrastive_relation(x, x + 1, x - 1, 0.1),
    "matching_relation": lambda x: L.matching_relation(L.pairwise_similarity(x.cos()), L.path_gram(x)),
    "reinforce": lambda x: L.reinforce(
        L.bernoulli_log_prob(x.sigmoid(), x > 0), L.reward_to_go(L.skip_rewards(x > 0, 0.1), x.sum(1))
    ),
    "self_critical": lambda x: L.self_critical(
        L.bernoulli_log_prob(x.sigmoid(), x > 0), L.blockdrop_reward(x[:, 0] > 0, (x > 0).sum(1), 6, -1.0)
    ),
    "exploration_bonus": lambda x: L.exploration_bonus(x.sigmoid()),
    "exploration_bonus-released": lambda x: L.exploration_bonus(L.bounded_probability(x.sigmoid()), form="released"),
}
SCALARS = {name.partition("-")[0] for name in CASES}
NOT_LOSSES = {  # ingredients, tested in their own files
    "bernoulli_log_prob", "blockdrop_reward", "bounded_probability", "default_stage_weights", "entropy_similarity",
    "executed_blocks", "execution_rates", "pairwise_similarity", "path_gram", "path_vectors", "reward_to_go",
    "skip_rewards", "within_stage_readings", "zero_step_share",
}  # fmt: skip


def test_every_loss_is_in_the_sweep():
    assert set(L.__all__) == SCALARS | NOT_LOSSES


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [0, 1, 2, 5])
@pytest.mark.parametrize("fill", ["random", "zeros", "ones", "huge", "tiny"])
def test_finite_value_and_gradient(name, batch, fill):
    values = {
        "random": torch.randn(batch, 6),
        "zeros": torch.zeros(batch, 6),
        "ones": torch.ones(batch, 6),
        "huge": 1e4 * torch.randn(batch, 6),  # saturates every softmax and sigmoid
        "tiny": 1e-30 * torch.randn(batch, 6),
    }
    x = values[fill].requires_grad_()
    loss = CASES[name](x)
    assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite()
    if loss.requires_grad:
        assert torch.autograd.grad(loss, x)[0].isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_half_precision_input_is_computed_in_float32(name):
    x = torch.randn(4, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = CASES[name](x)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("name", CASES)
def test_pure(name):
    x = torch.randn(4, 6)
    before = x.clone()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = CASES[name](x)
        torch.manual_seed(1)
        second = CASES[name](x)
    assert torch.equal(first, second) and torch.equal(x, before)
