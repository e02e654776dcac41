"""Rewards and REINFORCE of SkipNet and BlockDrop: values of both specifications, their pitfalls, the score function."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from spnet.losses import (
    bernoulli_log_prob,
    blockdrop_reward,
    bounded_probability,
    exploration_bonus,
    reinforce,
    reward_to_go,
    self_critical,
    skip_rewards,
)
from spnet.network.sampling import Bounded, Categorical

PROPERTY = settings(max_examples=25, deadline=None, database=None, derandomize=True)

# SkipNet's worked example: N = 3, alpha = 0.1, CE = 0.5
PROB, ACTIONS = torch.tensor([[0.8, 0.4, 0.6]]), torch.tensor([[1, 0, 1]])
CROSS_ENTROPY, ALPHA, WEIGHT = torch.tensor([0.5]), 0.1, 0.01

# BlockDrop's: K = 2
KEEP = torch.tensor([[0.9, 0.3]])


def close(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=tolerance, rtol=0)


def test_skipnet_worked_rewards():
    rewards = skip_rewards(ACTIONS, ALPHA)
    close(rewards, [[0.0, 0.033333, 0.0]])
    close(reward_to_go(rewards, CROSS_ENTROPY), [[-0.466667, -0.466667, -0.5]])
    close(CROSS_ENTROPY - rewards.sum(1), [0.466667])  # the sample's objective J
    close(reward_to_go(rewards, CROSS_ENTROPY, beta=ALPHA / 3), [[0.016667, 0.016667, -0.016667]])
    close(reward_to_go(rewards, CROSS_ENTROPY, gamma=0.9), [[-0.3345, -0.371667, -0.45]])


def test_skipnet_worked_surrogate():
    log_prob = bernoulli_log_prob(PROB, ACTIONS).requires_grad_()
    close(log_prob.detach(), [[-0.223144, -0.510826, -0.510826]])
    rewards = skip_rewards(ACTIONS, ALPHA)
    surrogate = WEIGHT * reinforce(log_prob, reward_to_go(rewards, CROSS_ENTROPY))
    assert surrogate.item() == pytest.approx(-0.00597932, abs=1e-8)
    close(torch.autograd.grad(surrogate, log_prob)[0], [[0.00466667, 0.00466667, 0.005]], 1e-8)
    imagenet = WEIGHT * reinforce(log_prob, reward_to_go(rewards, CROSS_ENTROPY, beta=ALPHA / 3))
    assert imagenet.item() == pytest.approx(3.71906e-05, abs=1e-9)


def test_the_discounted_form_is_the_released_recursion():
    rewards, cross_entropy = torch.rand(4, 5), torch.rand(4)
    running, expected = -cross_entropy, []
    for reward in reversed(rewards.unbind(1)):
        running = reward + 0.9 * running
        expected.insert(0, running)
    torch.testing.assert_close(reward_to_go(rewards, cross_entropy, gamma=0.9), torch.stack(expected, 1))


def test_without_skip_reward_every_gate_answers_for_the_prediction():
    cross_entropy = torch.rand(3)
    togo = reward_to_go(skip_rewards(torch.zeros(3, 4), 0.0), cross_entropy)
    torch.testing.assert_close(togo, -cross_entropy.unsqueeze(1).expand(3, 4))


def test_costs_weigh_skips():
    close(
        skip_rewards(torch.tensor([[0.0, 0.0], [1.0, 0.5]]), 1.0, torch.tensor([1.0, 3.0])), [[0.5, 1.5], [0.0, 0.75]]
    )


def test_permuting_samples_permutes_rewards_and_keeps_the_loss():
    actions, cross_entropy, log_prob = torch.randint(2, (6, 4)), torch.rand(6), -torch.rand(6, 4)
    order = torch.randperm(6)
    togo = reward_to_go(skip_rewards(actions, ALPHA), cross_entropy)
    shuffled = reward_to_go(skip_rewards(actions[order], ALPHA), cross_entropy[order])
    torch.testing.assert_close(shuffled, togo[order])
    torch.testing.assert_close(reinforce(log_prob[order], shuffled), reinforce(log_prob, togo))


def test_trap_unequal_shapes_do_not_mix_rewards_and_actions():
    """The released ImageNet code multiplies (B,) by (B, 1) and gets -0.30 here."""
    log_prob, reward = torch.tensor([[-0.1], [-0.9]]), torch.tensor([[-1.0], [-0.2]])
    assert reinforce(log_prob, reward).item() == pytest.approx(-0.14, abs=1e-6)
    assert -(log_prob.squeeze(1) * reward).mean().item() == pytest.approx(-0.30, abs=1e-6)
    with pytest.raises(ValueError, match="differ in shape"):
        reinforce(log_prob.squeeze(1), reward)
    with pytest.raises(ValueError, match="cross_entropy must be"):
        reward_to_go(reward, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="advantage must be"):
        self_critical(log_prob, reward)


def test_no_gradient_through_rewards():
    cross_entropy, log_prob, actions = (torch.rand(shape, requires_grad=True) for shape in ((2,), (2, 3), (2, 3)))
    reward = reward_to_go(skip_rewards(actions, ALPHA), cross_entropy)
    assert not reward.requires_grad
    assert not reward_to_go(actions * 1, cross_entropy).requires_grad
    reinforce(log_prob, cross_entropy.unsqueeze(1).expand(2, 3)).backward()
    assert cross_entropy.grad is None and log_prob.grad is not None
    advantage = torch.ones(2, requires_grad=True)
    self_critical(log_prob, advantage).backward()
    assert advantage.grad is None
    assert not blockdrop_reward(torch.ones(2), actions.sum(1), 3, -1.0).requires_grad


def one_gate(sampler, logit: float, draws: int, baseline: float = 0.0) -> tuple[float, float, float]:
    """REINFORCE's estimate of dJ/dz for one gate, its standard error, and the exact slope."""
    z = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    logits = torch.stack([torch.zeros_like(z), z]).expand(draws, 2)
    draw = sampler(0, logits, torch.Generator().manual_seed(0))
    objective = torch.where(draw.gate_BK[:, 1] > 0, 0.3, 0.9 - 0.1)  # CE if run; CE - reward if skipped
    reward = -(objective + baseline)
    (estimate,) = torch.autograd.grad(reinforce(draw.log_prob_B.unsqueeze(1), reward.unsqueeze(1)), z)
    p = bounded_probability(torch.sigmoid(z), sampler.a) if isinstance(sampler, Bounded) else torch.sigmoid(z)
    (exact,) = torch.autograd.grad(p * 0.3 + (1 - p) * 0.8, z)
    (per_run,) = torch.autograd.grad(torch.log(bounded_probability(torch.sigmoid(z), getattr(sampler, "a", 1.0))), z)
    spread = float(per_run.abs()) * (0.8 + abs(baseline)) * 3 / math.sqrt(draws)
    return float(estimate), spread, float(exact)


@pytest.mark.parametrize("sampler", [Categorical(), Bounded(0.8), Bounded(1.0)])
@pytest.mark.parametrize("baseline", [0.0, 2.0])
def test_reinforce_is_the_slope_of_the_expected_objective(sampler, baseline):
    estimate, spread, exact = one_gate(sampler, 0.4, 200_000, baseline)
    assert exact < -0.05  # far from zero, so that a missing gradient fails
    assert estimate == pytest.approx(exact, abs=4 * spread)
    assert 4 * spread < 0.6 * abs(exact)


def test_blockdrop_worked_rewards():
    def reward(kept, blocks, correct=True, penalty=-1.0):
        return blockdrop_reward(torch.tensor([correct]), torch.tensor([kept]), blocks, penalty).item()

    assert reward(2, 4) == pytest.approx(0.75)
    assert reward(16.933, 54) == pytest.approx(0.9017, abs=1e-4)
    assert reward(24.77, 33) == pytest.approx(0.4366, abs=1e-4)
    assert reward(0, 7) == 1
    assert reward(7, 7) == 0
    assert [reward(kept, 7, False, -5.0) for kept in range(8)] == [-5.0] * 8


def test_trap_wrong_predictions_are_selected_by_a_mask_not_by_its_complement():
    """On current torch the released code's complement of an integer mask indexes rows 0 and 1: (-1, -1, .7)."""
    kept = torch.tensor([0.5, 0.4, 0.3]).sqrt()
    for correct in (torch.tensor([1, 0, 1]), torch.tensor([True, False, True]), torch.tensor([1.0, 0.0, 1.0])):
        close(blockdrop_reward(correct, kept, 1, -1.0), [0.5, -1.0, 0.7])


@pytest.mark.parametrize(
    ("drawn", "correct", "reward", "log_prob", "loss"),
    [
        ((1, 0), True, 0.75, -0.779141, 0.0),
        ((0, 0), True, 1.0, -1.825109, 0.456277),
        ((0, 0), False, -1.0, -1.825109, -3.193941),
    ],
)
def test_blockdrop_worked_losses(drawn, correct, reward, log_prob, loss):
    bounded = bounded_probability(KEEP)
    close(bounded, [[0.74, 0.38]])
    baseline = blockdrop_reward(torch.tensor([True]), torch.tensor([1]), 2, -1.0)
    close(baseline, [0.75])
    actions = torch.tensor([drawn])
    got = blockdrop_reward(torch.tensor([correct]), actions.sum(1), 2, -1.0)
    close(got, [reward])
    log_probs = bernoulli_log_prob(bounded, actions)
    close(log_probs.sum(1), [log_prob])
    assert self_critical(log_probs, got - baseline).item() == pytest.approx(loss, abs=1e-6)


def test_blockdrop_worked_bonus_and_first_phase_loss():
    bounded = bounded_probability(KEEP)
    released, entropy = exploration_bonus(bounded, form="released"), exploration_bonus(bounded)
    assert released.item() == pytest.approx(0.590500, abs=1e-6)
    assert entropy.item() == pytest.approx(1.237121, abs=1e-6)
    policy = self_critical(bernoulli_log_prob(bounded, torch.zeros(1, 2)), torch.tensor([0.25]))
    assert (policy - 0.1 * released).item() == pytest.approx(0.397227, abs=1e-6)
    assert (policy - 0.1 * entropy).item() == pytest.approx(0.332565, abs=1e-6)


@pytest.mark.parametrize(("p", "bounded"), [(0.9, 0.74), (0.3, 0.38), (0.0, 0.2), (1.0, 0.8), (0.5, 0.5)])
def test_worked_bounded_probabilities(p, bounded):
    assert bounded_probability(torch.tensor(p)).item() == pytest.approx(bounded, abs=1e-7)


@PROPERTY
@given(st.floats(0, 1, width=32), st.floats(0.6, 1))
def test_bounds_hold_and_the_greedy_side_stays(p, a):
    bounded = bounded_probability(torch.tensor(p, dtype=torch.float64), a).item()
    assert 1 - a - 1e-9 <= bounded <= a + 1e-9
    assert (bounded > 0.5) == (p > 0.5) or abs(p - 0.5) < 1e-9


def test_the_greedy_path_earns_nothing_and_pulls_nothing():
    log_prob = torch.randn(3, 4, requires_grad=True)
    loss = self_critical(log_prob, torch.zeros(3))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, log_prob)[0].any()


@pytest.mark.parametrize("mask", [torch.tensor([False, True, True]), torch.tensor([[False, True, True]]).expand(2, 3)])
def test_masked_blocks_get_exactly_no_gradient(mask):
    log_prob = torch.tensor([[-math.inf, -1.0, -2.0], [-0.5, -1.0, -2.0]], requires_grad=True)
    loss = self_critical(log_prob, torch.tensor([1.0, -1.0]), mask)
    assert loss.item() == pytest.approx(0.0)
    close(torch.autograd.grad(loss, log_prob)[0], [[0.0, -0.5, -0.5], [0.0, 0.5, 0.5]])
    prob = torch.full((2, 3), 0.4, requires_grad=True)
    bonus = exploration_bonus(prob, mask_BN=mask)
    assert bonus.item() == pytest.approx(2 * 0.673012, abs=1e-6)
    assert not torch.autograd.grad(bonus, prob)[0][:, 0].any()


def test_released_second_phase_sums_over_the_batch():
    log_prob, advantage = -torch.rand(5, 3), torch.randn(5)
    mean = self_critical(log_prob, advantage)
    torch.testing.assert_close(self_critical(log_prob, advantage, reduction="sum"), 5 * mean)
    with pytest.raises(ValueError, match="reduction"):
        self_critical(log_prob, advantage, reduction="none")


@pytest.mark.parametrize("form", ["entropy", "released"])
def test_certain_decisions_are_worth_nothing_with_finite_slopes(form):
    prob = torch.tensor([[0.0, 1.0, 1e-38]], requires_grad=True)
    bonus = exploration_bonus(prob, form=form)
    assert bonus.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.autograd.grad(bonus, prob)[0].isfinite().all()


def test_the_full_entropy_favours_neither_side_and_the_released_form_favours_dropping():
    prob = torch.tensor([[0.5]], requires_grad=True)
    assert torch.autograd.grad(exploration_bonus(prob), prob)[0].item() == pytest.approx(0.0, abs=1e-6)
    assert torch.autograd.grad(exploration_bonus(prob, form="released"), prob)[0].item() < 0
    peak = torch.tensor([[math.exp(-1)]], requires_grad=True)
    assert torch.autograd.grad(exploration_bonus(peak, form="released"), peak)[0].item() == pytest.approx(0, abs=1e-6)


def test_impossible_draws_stay_finite():
    prob = torch.tensor([[1.0, 0.0]], requires_grad=True)
    log_prob = bernoulli_log_prob(prob, torch.tensor([[0, 1]]))
    assert log_prob.isfinite().all()
    assert not torch.autograd.grad(log_prob.sum(), prob)[0].any()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_nothing_to_learn_from_is_zero(shape):
    batch = shape[0]
    log_prob = torch.zeros(shape, requires_grad=True)
    togo = reward_to_go(skip_rewards(torch.zeros(shape), ALPHA), torch.ones(batch))
    assert togo.shape == shape
    for loss in (reinforce(log_prob, togo), self_critical(log_prob, torch.ones(batch)), exploration_bonus(log_prob)):
        assert loss.item() == 0
        assert torch.autograd.grad(loss, log_prob, retain_graph=True)[0].shape == shape


def test_a_policy_learns_to_drop_the_block_that_does_not_matter():
    """Toy bandit: the prediction is right exactly when block 1 is kept; block 2 changes nothing."""
    logits = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    sampler, noise, batch = Bounded(), torch.Generator().manual_seed(0), 64
    for _ in range(150):
        pairs = [torch.stack([torch.zeros_like(z), z]).expand(batch, 2) for z in logits]
        draws = [sampler(i, pair, noise) for i, pair in enumerate(pairs)]
        kept = torch.stack([draw.gate_BK[:, 1] for draw in draws], 1)
        greedy = (logits.detach() > 0).float().expand(batch, 2)
        rewards = [blockdrop_reward(u[:, 0] > 0, u.sum(1), 2, -1.0) for u in (kept, greedy)]
        loss = self_critical(torch.stack([draw.log_prob_B for draw in draws], 1), rewards[0] - rewards[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    keep = logits.sigmoid()
    assert keep[0] > 0.6 and keep[1] < 0.4


def test_a_positive_penalty_is_an_error():
    with pytest.raises(ValueError, match="penalty"):
        blockdrop_reward(torch.ones(1), torch.ones(1), 2, 5.0)
    with pytest.raises(ValueError, match="form of exploration_bonus"):
        exploration_bonus(torch.ones(1, 1), form="half")


def test_log_prob_of_a_sigmoid_gate_matches_the_two_option_softmax():
    z = torch.randn(6)
    two = F.log_softmax(torch.stack([torch.zeros(6), z], 1), 1)
    torch.testing.assert_close(bernoulli_log_prob(z.sigmoid(), torch.ones(6)), two[:, 1], atol=1e-6, rtol=1e-5)
