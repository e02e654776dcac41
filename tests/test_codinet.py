"""CoDiNet: its gate, its block rule, the worked objective through a real network, phases, and SP-Net on top of it."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest
import torch
from tiny import SHAPE, full_path, images, lively, paths, plain_resnet, two_steps
from torch import Tensor

from spnet import DynamicNetwork, UserError, create_model
from spnet.bench.macs import counted_macs
from spnet.build import build_network, create_method
from spnet.data import augment
from spnet.data.dataset import Augmentation
from spnet.inference.runtimes import branching, gathered
from spnet.losses import cost_deviation_of_mean
from spnet.methods import Batch, Method, Phase, Step
from spnet.methods.codinet import CoDiNetConfig, TwoLinears
from spnet.methods.spnet import SPNetConfig
from spnet.network.sampling import Argmax, Draw, GumbelSoft, GumbelStraightThrough
from spnet.runs.config import TrainingConfig
from spnet.training.step import freeze


@dataclass(frozen=True, eq=False)
class Table:
    """Given run gates (B, N), with a gradient: what a worked example says the routers chose."""

    run_BN: Tensor
    needs_logits: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        run_B = self.run_BN[:, i]
        return Draw(torch.stack([1 - run_B, run_B], 1), torch.zeros_like(run_B))


def built(wrapper: str = "", **settings) -> tuple[Method, DynamicNetwork]:
    method = create_method("codinet", wrapper, settings)
    net = build_network(method, "resnet8", num_classes=10, input_shape=SHAPE, seed=0)
    method.attach(net)
    return method, net


def model(**settings) -> DynamicNetwork:
    return create_model("resnet8", "codinet", in_channels=1, image_size=8, seed=0, **settings)


def objective_of(run: Tensor, copies: int, **settings):
    """Losses of a step whose run gates are given; resnet8, of whose three blocks the last has no router."""
    gates = run.clone().requires_grad_()
    method, net = built(targets=(0.5, 0.5, 1), **settings)
    phase = Phase("worked", 1, method.phases(1)[-1].objective, Table(gates), copies=copies)
    labels = torch.arange(len(run)) % 10
    return phase.objective(net, Batch(images(len(run)), labels, copies), Step(phase)), gates


WORKED = torch.tensor([[1.0, 0.0], [0.6, 0.0], [0.0, 1.0], [0.0, 0.6]])


def test_parameters_and_macs():
    for width, parameters in ((16, 306), (32, 1122), (64, 4290)):
        router = TwoLinears([width], [2], [True])
        assert sum(p.numel() for p in router.parameters()) == parameters
        assert router.macs == (width * width + 2 * width,)
    router = create_model("resnet110", "codinet").router
    assert isinstance(router, TwoLinears) and sum(router.gated) == 54
    assert sum(p.numel() for p in router.parameters()) == 98_940
    assert sum(router.macs) == 96_864 and router.start_macs == 0


def test_two_linears_are_one_linear_map():
    router = TwoLinears([16], [2], [True])
    gate: Any = router.gates["0"]
    first, second = gate
    x = torch.randn(5, 16)
    expected = x @ (second.weight @ first.weight).T + second.weight @ first.bias + second.bias
    torch.testing.assert_close(router.step((), 0, x, x)[0], expected, atol=1e-5, rtol=1e-5)


def test_about_half_of_the_blocks_run_at_the_start():
    router = create_model("resnet110", "codinet", seed=0).router
    assert isinstance(router, TwoLinears)
    generator = torch.Generator().manual_seed(0)
    opened = []
    for i, width in enumerate((*[16] * 19, *[32] * 18, *[64] * 17)):
        pooled = torch.rand(512, width, generator=generator)
        opened.append(router.step((), i, pooled, pooled)[0].softmax(1)[:, 1].mean())
    assert torch.stack(opened).mean().item() == pytest.approx(0.5, abs=0.1)


def test_worked_objective():
    """L - CE = 0.1 (0.00107864 + 0.16) + 0.01 * 4 samples * 0.2; the block without a router runs for everybody."""
    losses, _ = objective_of(
        WORKED, 2, consistency=0.1, diversity=0.1, diversity_margin=2.0, cost=0.01 * 4, cost_blocks=2.0
    )
    assert losses.watched["consistency"].item() == pytest.approx(0.00107864, abs=1e-7)
    assert losses.watched["diversity"].item() == pytest.approx(0.16, abs=1e-6)
    assert losses.watched["cost"].item() == pytest.approx(0.2, abs=1e-6)
    assert (losses.total - losses.terms["classification"]).item() == pytest.approx(0.02410786, abs=1e-6)


@pytest.mark.parametrize(("settings", "watched", "value"), [
    ({"consistency_margin": 0.2}, "consistency", 0.00686292),
    ({"consistency_margin": 0.0}, "consistency", 0.08),
    ({"diversity_margin": 0.5}, "diversity", 0.0),
])  # fmt: skip
def test_worked_margins(settings: dict, watched: str, value: float):
    losses, _ = objective_of(WORKED, 2, **settings)
    assert float(losses.watched[watched]) == pytest.approx(value, abs=1e-6)


def test_cost_is_met_on_average_and_does_not_depend_on_the_batch():
    run = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    batch, _ = objective_of(run, 1, cost=1.0, cost_blocks=2.0)
    assert batch.terms["cost"].item() == 0.0  # one block of two on average, and the block without a router
    each, _ = objective_of(run, 1, cost=1.0, cost_blocks=2.0, cost_form="sample")
    assert each.terms["cost"].item() == 1.0
    assert cost_deviation_of_mean(WORKED.sum(1), 1.0) == cost_deviation_of_mean(WORKED.repeat(2, 1).sum(1), 1.0)
    once, _ = objective_of(WORKED, 2, cost=1.0, cost_blocks=2.0)
    twice, _ = objective_of(WORKED.repeat(2, 1), 2, cost=1.0, cost_blocks=2.0)
    assert once.terms["cost"].item() == pytest.approx(twice.terms["cost"].item(), abs=1e-6)


@pytest.mark.parametrize("run", [
    torch.ones(2, 2),  # one image, two equal copies
    torch.zeros(4, 2),  # two images, all paths equal
    torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),  # equal copies, different images
])  # fmt: skip
def test_equal_paths_cost_nothing_and_have_finite_gradients(run: Tensor):
    losses, gates = objective_of(run, 2, consistency_margin=0.0)
    assert losses.watched["consistency"].item() == 0.0
    losses.total.backward()
    assert gates.grad is not None and bool(gates.grad.isfinite().all())


def test_one_copy_is_always_consistent():
    losses, _ = objective_of(torch.rand(3, 2), 1, consistency_margin=0.0)
    assert losses.watched["consistency"].item() == 0.0


def test_a_term_without_weight_is_watched_but_not_minimised():
    losses, _ = objective_of(WORKED, 2, consistency=0.0, diversity=0.0, cost=0.0)
    assert set(losses.terms) == {"classification"}
    assert {"consistency", "diversity", "rate"} <= set(losses.watched)


def test_without_routers_only_the_classification_is_left():
    method, net = built(target=1.0)
    phase = method.phases(1)[0]
    losses = phase.objective(net, Batch(images(4), torch.arange(4), 2), Step(phase))
    assert not any(net.gated) and losses.total.item() == losses.terms["classification"].item()


def test_the_target_rate_loss_is_an_option():
    losses, _ = objective_of(WORKED, 2, rate=2.0, cost=0.0)
    # Rates 0.4 and 0.4 against 0.5, and a block without a router: 2 * (0.01 + 0.01 + 0) / 3.
    assert losses.terms["rate"].item() == pytest.approx(2 * 0.02 / 3, abs=1e-6)


def test_a_batch_holds_the_copies_side_by_side_each_drawn_anew():
    pictures = torch.randint(0, 256, (5, *SHAPE), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    several = augment(pictures, Augmentation(2, False), generator, copies=6).unflatten(0, (5, 6))
    for picture, copies in zip(pictures, several, strict=True):
        assert len(copies.flatten(1).unique(dim=0)) > 1
        everything = torch.stack([torch.nn.functional.pad(picture, (2, 2, 2, 2)).unfold(1, 8, 1).unfold(2, 8, 1)])
        windows = everything.flatten(1, 3).reshape(-1, 64)
        assert all(bool((windows == copy.flatten()).all(1).any()) for copy in copies)
    assert torch.arange(5).repeat_interleave(6).unflatten(0, (5, 6)).eq(torch.arange(5)[:, None]).all()


def test_all_run_is_the_plain_resnet_and_a_skip_at_a_transition_has_its_own_projection():
    net = lively(model())
    x = images(4)
    torch.testing.assert_close(
        net.forward_path(x, full_path(net)).logits, plain_resnet(net.state_dict(), x), atol=1e-5, rtol=1e-5
    )
    block = net.blocks[1]
    h = images(4, (16, 8, 8)).relu()
    own_skip: Any = block.own_skip
    conv, norm, _ = own_skip
    torch.testing.assert_close(block.run(h, 0), norm(conv(h)).relu())
    torch.testing.assert_close(net.blocks[0].run(h, 0), h)


def test_training_mixes_softly_and_testing_decides():
    _, net = built()
    x = images(6)
    soft = net.train()(x, sampler=GumbelSoft())
    assert any(bool(((gate > 0.01) & (gate < 0.99)).any()) for gate in soft.gates)
    torch.testing.assert_close(torch.stack([gate.sum(1) for gate in soft.gates]), torch.ones(3, 6))
    assert torch.equal(soft.decisions, torch.stack([gate.argmax(1) for gate in soft.gates], 1))
    with torch.no_grad():
        hard = net.eval()(x)
    assert all(bool(((gate == 0) | (gate == 1)).all()) for gate in hard.gates)


def test_evaluation_is_deterministic_and_alone_equals_in_a_batch():
    net = lively(model())
    x = images(7)
    with torch.no_grad():
        together, again = net(x), net(x)
        assert torch.equal(together.logits, again.logits) and torch.equal(together.decisions, again.decisions)
        for i in range(len(x)):
            alone = net(x[i : i + 1])
            assert torch.equal(alone.decisions[0], together.decisions[i])
            torch.testing.assert_close(alone.logits[0], together.logits[i], atol=1e-5, rtol=1e-5)
            assert alone.macs[0] == together.macs[i]


@torch.no_grad()
def test_executors_agree_and_cost_what_torch_counts():
    net = lively(model())
    x = images(6)
    masked = net(x)
    torch.testing.assert_close(net(x, executor=gathered).logits, masked.logits, atol=1e-5, rtol=1e-5)
    for i in range(len(x)):
        one = x[i : i + 1]
        torch.testing.assert_close(net(one, executor=branching).logits, masked.logits[i : i + 1], atol=1e-5, rtol=1e-5)
        assert counted_macs(net, one) == int(masked.macs[i])
    for path in paths(net, 4):
        assert counted_macs(net, x[:1], path) == int(net.forward_path(x[:1], path).macs)


def test_phases():
    def plan(epochs: int, **settings) -> list[tuple[str, int]]:
        phases = create_method("codinet", "", settings).phases(epochs)
        return [(phase.name, phase.epochs) for phase in phases]

    assert plan(8) == [("codinet", 8)]
    assert plan(8, static_share=0.25, finetune_share=0.25) == [("static", 2), ("codinet", 4), ("finetune", 2)]
    assert plan(3, static_share=0.01, finetune_share=0.01) == [("static", 1), ("codinet", 1), ("finetune", 1)]
    with pytest.raises(UserError, match="at least as many epochs"):
        plan(2, static_share=0.25, finetune_share=0.25)
    with pytest.raises(UserError, match="less than 1"):
        plan(8, static_share=0.5, finetune_share=0.5)
    main = create_method("codinet", "", {"copies": 3}).phases(1)[0]
    assert main.copies == 3 and main.sampler == GumbelSoft(1.0)
    assert create_method("codinet", "", {"hard": True}).phases(1)[0].sampler == GumbelStraightThrough(1.0)


@pytest.mark.parametrize("settings", [
    {"copies": 0}, {"tau": 0}, {"consistency_margin": -0.1}, {"diversity_margin": -0.1}, {"cost_form": "mean"},
])  # fmt: skip
def test_settings_are_checked(settings: dict):
    with pytest.raises(UserError):
        create_method("codinet", "", settings)


def test_setting_names_collide_with_no_other():
    own, *others = ({f.name for f in fields(c)} for c in (CoDiNetConfig, TrainingConfig, SPNetConfig))
    assert not any(own & other for other in others)


@pytest.mark.parametrize("wrapper", ["", "spnet"])
@pytest.mark.parametrize("hard", [False, True])
def test_two_steps_of_every_phase(wrapper: str, hard: bool):
    method, net = built(wrapper, static_share=0.3, finetune_share=0.3, hard=hard)
    for phase in method.phases(3):
        before = {name: value.clone() for name, value in net.state_dict().items()}
        two_steps(net, phase)
        for name, parameter in net.named_parameters():
            if phase.trainable(name):
                assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), (phase.name, name)
        frozen = {"static": "router.", "codinet": "nothing", "finetune": "router."}[phase.name]
        for name, value in net.state_dict().items():
            if name.startswith(frozen):
                assert torch.equal(value, before[name]), (phase.name, name)
        moved = [n for n, v in net.state_dict().items() if n.startswith("backbone.") and not torch.equal(v, before[n])]
        assert moved


def test_finetuning_runs_the_paths_of_the_test():
    method, net = built(finetune_share=0.5)
    finetune = method.phases(2)[-1]
    assert finetune.sampler == Argmax() and finetune.copies == 1
    freeze(net, finetune)
    losses = finetune.objective(net, Batch(images(4), torch.arange(4)), Step(finetune))
    assert set(losses.terms) == {"classification"}
    assert all(bool(((gate == 0) | (gate == 1)).all()) for gate in losses.trace.gates)


def test_spnet_aligns_the_paths_of_every_copy():
    method, net = built("spnet")
    phase = method.phases(1)[0]
    net.train()
    losses = phase.objective(net, Batch(images(6), torch.arange(3).repeat_interleave(2), 2), Step(phase))
    assert {"classification", "path", "logits", "evolution", "consistency", "diversity", "cost"} == set(losses.terms)
    assert losses.trace.router_logits[0].shape == (6, 2)
