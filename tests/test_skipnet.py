"""SkipNet: gates and their cost, hard decisions first, then sampled ones whose reward trains the gates."""

import math
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import phase_named, small_batch
from toy_networks import gradients, toy_backbone

from spnet import create_model
from spnet.backbones import create_backbone
from spnet.bench.macs import counted_macs
from spnet.build import build_network, create_method
from spnet.errors import UserError
from spnet.inference.runtimes import branching, gathered
from spnet.methods.base import Batch, Step
from spnet.methods.skipnet import FeedForward, Recurrent, SkipNet, SkipNetConfig, SoftProbability
from spnet.network.dynamic import DynamicNetwork, Noise
from spnet.network.path_statistics import execution_rate_per_block
from spnet.network.sampling import StraightThrough
from spnet.training.step import freeze

GATES = ("rnn", "ff1", "ff2")
SMALL: dict[str, Any] = {"in_channels": 1, "image_size": 8, "seed": 0}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def skipnet(backbone="resnet8", **settings):
    """Method and 8x8 network."""
    method = create_method("skipnet", settings=settings)
    return method, build_network(method, backbone, num_classes=10, input_shape=(1, 8, 8), seed=0)


def objective(method, net, batch, name):
    phase = phase_named(method, name)
    return phase.objective(net, batch, Step(phase, noise=Noise(torch.Generator().manual_seed(1))))


# ---------------------------------------------------------------------------------------------- gates


@pytest.mark.parametrize(("form", "parameters"), [("ff1", (4706, 18626, 74114)), ("ff2", (2370, 9346, 37122))])
def test_parameters_of_convolutional_gates(form, parameters):
    router = FeedForward([(width, 8, 8) for width in (16, 32, 64)], (True,) * 3, form=form)
    assert tuple(count(gate) for gate in router.gates.values()) == parameters


def test_parameters_of_the_recurrent_gate():
    router = Recurrent((16, 32, 64), (True,) * 3)
    assert tuple(count(embedding) for embedding in router.embeddings.values()) == (170, 330, 650)
    assert count(router.lstm) == 880
    assert count(router.last) == 11


def test_resnet110_has_53_gates_on_one_controller():
    backbone = create_backbone("resnet110", num_classes=10)
    router = SkipNet().build_router(backbone)
    assert isinstance(router, Recurrent)
    assert router.gated == (False,) + (True,) * 53
    assert count(router.embeddings) == 20_050
    assert count(router) - 20_050 == 891


@pytest.mark.parametrize(("depth", "gates"), [(38, 17), (74, 35), (110, 53), (152, 74)])
def test_gates_of_the_published_depths(depth: int, gates: int):
    """3n - 1, and each costs 0.02 to 0.03 % of its block."""
    net = create_model(f"resnet{depth}", "skipnet")
    assert len(net.gated_indices) == gates and net.router is not None
    shares = {net.router.macs[i] / net.blocks[i].macs[-1] for i in net.gated_indices if net.blocks[i].identity_skip}
    assert {round(share, 4) for share in shares} <= {0.0002, 0.0003}


@pytest.mark.parametrize(("form", "share"), [("ff1", 0.15625), ("ff2", 0.125)])
def test_share_of_a_blocks_multiply_adds(form, share):
    width, size = 16, 32
    router = FeedForward([(width, size, size)], (True,), form=form)
    assert (router.macs[0] - 2 * width) / (2 * 9 * width**2 * size**2) == share


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1)])
def test_torch_counts_the_same_multiply_adds(gate, size):
    method = create_method("skipnet", settings={"gate": gate})
    net = build_network(method, "resnet14", num_classes=10, input_shape=(3, *size), seed=0)
    images = torch.rand(1, 3, *size)
    for path in ([1] * 6, [1] + [0] * 5, [1, 0, 1, 0, 1, 0]):
        decisions = torch.tensor(path)
        assert counted_macs(net, images, decisions) == net.forward_path(images, decisions).macs.item()


def test_convolutional_gates_refuse_features_that_are_no_images():
    with pytest.raises(UserError, match="rnn"):
        FeedForward([(17, 32)], (True,))


def test_reading_shapes_leaves_the_backbone_as_it_was():
    backbone = create_backbone("resnet8", num_classes=10, input_shape=(1, 9, 7))
    backbone.train()
    backbone.blocks[0].eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert backbone.input_shapes == ((16, 9, 7), (16, 9, 7), (32, 5, 4))
    assert [backbone.training, backbone.blocks[0].training, backbone.blocks[1].training] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_initial_weights():
    torch.manual_seed(0)
    he = Recurrent((64,) * 40, (True,) * 40)
    spread = torch.cat([layer.weight.flatten() for layer in he.embeddings.values()]).std()  # type: ignore[union-attr]
    assert spread.item() == pytest.approx(math.sqrt(2 / 10), rel=0.02)
    xavier = Recurrent((64,) * 40, (True,) * 40, init="xavier")
    spread = torch.cat([layer.weight.flatten() for layer in xavier.embeddings.values()]).std()  # type: ignore[union-attr]
    assert spread.item() == pytest.approx(math.sqrt(2 / 74), rel=0.02)
    assert all(not parameter.any() for parameter in xavier.parameters() if parameter.dim() == 1)
    logits, _ = xavier.logits(xavier.start(torch.zeros(5, 1, 2, 2), None), 0, torch.zeros(()), torch.zeros(5, 64))
    assert not logits.any()  # nothing opens the gates


# ---------------------------------------------------------------------------------------------- state of the LSTM


def test_the_state_starts_at_zero_and_goes_from_gate_to_gate():
    torch.manual_seed(0)
    router = Recurrent((4, 4, 4), (True, False, True))
    start = router.begin(torch.rand(3, 1, 2, 2))
    assert all(not value.any() and value.shape == (3, 10) for value in start)
    x, image = torch.rand(3, 4), torch.zeros(())
    _, after_x = router.step(start, 0, image, x)
    _, after_other = router.step(start, 0, image, x + 1)
    later, _ = router.step(after_x, 2, image, x)
    assert not torch.equal(later, router.step(after_other, 2, image, x)[0])
    fresh = router.begin(torch.rand(3, 1, 2, 2))
    assert torch.equal(later, router.step(router.step(fresh, 0, image, x)[1], 2, image, x)[0])


@pytest.mark.parametrize("gate", GATES)
def test_an_image_takes_the_same_path_alone_in_any_batch_and_again(gate):
    net = create_model("resnet20", "skipnet", gate=gate, **SMALL).eval()
    images = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    whole = net(images)
    again = net(images)
    assert torch.equal(whole.decisions, again.decisions)
    assert torch.equal(whole.logits, again.logits)
    assert torch.equal(whole.decisions.flip(0), net(images.flip(0)).decisions)
    for i in range(len(images)):
        alone = net(images[i : i + 1], executor=branching)
        assert torch.equal(alone.decisions[0], whole.decisions[i])
        torch.testing.assert_close(alone.logits[0], whole.logits[i], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net(images, executor=gathered).logits, whole.logits, atol=1e-5, rtol=1e-5)


def test_a_sample_that_leaves_early_takes_its_state_along():
    net = create_model("resnet14", "skipnet", wrapper="spnet", **SMALL).eval()
    images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    first = net(images).stage_logits[0].detach().softmax(1).amax(1).sort().values
    confidence = float(first[4:6].mean())
    whole = net(images, exit_confidence=confidence)
    assert 0 < int((whole.exit_stage == 0).sum()) < 9
    for i in range(len(images)):
        alone = net(images[i : i + 1], exit_confidence=confidence)
        assert torch.equal(alone.decisions[0], whole.decisions[i])


@pytest.mark.parametrize("gate", GATES)
def test_half_precision_autocast(gate):
    method, net = skipnet(gate=gate)
    with torch.autocast("cpu", torch.bfloat16):
        losses = objective(method, net, small_batch(), "reinforce")
    assert losses.total.dtype == torch.float32
    losses.total.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())


# ---------------------------------------------------------------------------------------------- block rule


def test_all_gates_open_is_the_plain_resnet():
    net = create_model("resnet14", "skipnet", **SMALL).eval()
    plain = create_model("resnet14", "static", skip_rule="plain", shortcut="projection", **SMALL).eval()
    images = torch.rand(3, 1, 8, 8)
    opened = net.forward_path(images, torch.ones(6, dtype=torch.long))
    assert torch.equal(opened.logits, plain(images).logits)
    assert opened.macs.tolist() == [net.static_macs + sum(net.router.macs)] * 3  # type: ignore[union-attr]


def test_the_first_block_is_never_skipped():
    net = create_model("resnet8", "skipnet", **SMALL)
    assert net.gated == (False, True, True)
    with pytest.raises(UserError, match="block 0"):
        net.forward_path(torch.rand(1, 1, 8, 8), torch.tensor([0, 1, 1]))


def test_a_skipped_block_is_its_shortcut_without_relu():
    net = create_model("resnet8", "skipnet", **SMALL).eval()
    block = net.blocks[1]
    x = torch.rand(2, 16, 8, 8)
    skipped = block.run(x, 0)
    assert torch.equal(skipped, block.shortcut(x))  # type: ignore[attr-defined]
    assert (skipped < 0).any()


def test_a_projection_runs_once_a_step():
    method, net = skipnet()
    objective(method, net, small_batch(), "reinforce")
    assert net.blocks[1].shortcut[1].num_batches_tracked == 1  # type: ignore[attr-defined]


def test_computation_percentage_counts_the_first_block():
    decisions = torch.ones(2, 54, dtype=torch.long)
    decisions[0, 1:] = 0
    assert 100 * execution_rate_per_block(decisions).mean().item() == pytest.approx(50.926, abs=1e-3)
    assert 100 * execution_rate_per_block(decisions[:1]).mean().item() == pytest.approx(1.852, abs=1e-3)


# ---------------------------------------------------------------------------------------------- supervised phase


def test_supervised_decisions_are_hard_and_cross_entropy_trains_the_gates():
    method, net = skipnet(gate="ff2")
    losses = objective(method, net, small_batch(), "supervised")
    assert list(losses.terms) == ["classification"]
    assert all(((gate == 0) | (gate == 1)).all() for gate in losses.trace.gates)
    slopes = gradients(losses.total, net)
    assert all(slopes[name].any() for name in slopes if name.startswith("router.gates.1."))


def test_supervised_soft_gates_are_the_probabilities():
    method, net = skipnet(supervised_soft=True)
    phase = phase_named(method, "supervised")
    assert isinstance(phase.sampler, SoftProbability)
    losses = objective(method, net, small_batch(), "supervised")
    torch.testing.assert_close(losses.trace.gates[0], losses.trace.router_logits[0].softmax(1))


def test_the_rate_loss_is_an_option_of_the_supervised_phase():
    method, net = skipnet(rate=2.0, target=0.3)
    losses = objective(method, net, small_batch(), "supervised")
    rates = [gate[:, 1].mean() for gate in losses.trace.gates]
    expected = 2.0 * sum((0.3 - rate) ** 2 for rate in rates) / 3  # published: a mean over all blocks
    torch.testing.assert_close(losses.terms["rate"], expected)
    assert gradients(losses.terms["rate"], net)["router.last.weight"].any()
    assert "rate" not in objective(method, net, small_batch(), "reinforce").terms


# ---------------------------------------------------------------------------------------------- reinforcement

PROB, ACTIONS = torch.tensor([0.8, 0.4, 0.6]), torch.tensor([1, 0, 1])


class WorkedNet(torch.nn.Module):
    """The specification's example: three gates, CE = 0.5, in a batch of equal samples."""

    gated_indices = (1, 2, 3)

    def option_costs(self, i):
        return torch.tensor([0.0, 1.0])

    def forward(self, images, sampler, noise):
        right = math.exp(-0.5)
        log_prob = torch.where(ACTIONS == 1, PROB, 1 - PROB).log().expand(len(images), 3)
        return SimpleNamespace(
            logits=torch.tensor([right, 1 - right]).log().expand(len(images), 2),
            log_prob=log_prob.clone().requires_grad_(),
            gates=[F.one_hot(action, 2).float().expand(len(images), 2) for action in ACTIONS],
        )


def worked(copies=1, **settings):
    method = SkipNet(SkipNetConfig(**settings))
    phase = phase_named(method, "reinforce")
    batch = Batch(torch.zeros(copies, 1, 1, 1), torch.zeros(copies, dtype=torch.long))
    return phase.objective(WorkedNet(), batch, Step(phase))  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_worked_surrogate(reduction):
    losses = worked(reinforce_reduction=reduction)
    assert losses.terms["reinforce"].item() == pytest.approx(-0.00597932, abs=1e-8)
    assert losses.terms["classification"].item() == pytest.approx(0.5, abs=1e-6)
    assert losses.watched["skip_reward"].item() == pytest.approx(0.033333, abs=1e-6)
    losses.total.backward()
    expected = torch.tensor([[0.00466667, 0.00466667, 0.005]])
    torch.testing.assert_close(losses.trace.log_prob.grad, expected, atol=1e-7, rtol=0)


def test_worked_surrogate_in_other_scales():
    assert worked(prediction_reward=None).terms["reinforce"].item() == pytest.approx(3.71906e-05, abs=1e-9)
    logs, rewards = torch.tensor([-0.223144, -0.510826, -0.510826]), torch.tensor([-0.334500, -0.371667, -0.450000])
    expected = -0.01 * (logs * rewards).sum().item()
    assert worked(discount=0.9).terms["reinforce"].item() == pytest.approx(expected, abs=1e-8)


def test_over_a_batch_the_surrogate_is_summed_or_averaged_as_said():
    one = worked().terms["reinforce"].item()
    assert worked(4).terms["reinforce"].item() == pytest.approx(4 * one)
    assert worked(4, reinforce_reduction="mean").terms["reinforce"].item() == pytest.approx(one)


def test_cross_entropy_does_not_reach_the_gates_nor_the_reward_anything():
    method, net = skipnet("resnet14")
    losses = objective(method, net, small_batch(), "reinforce")
    by_prediction = gradients(losses.terms["classification"], net)
    by_reward = gradients(losses.terms["reinforce"], net)
    assert not any(slope.any() for name, slope in by_prediction.items() if name.startswith("router."))
    assert by_reward["router.last.weight"].any()
    assert by_reward["backbone.stem.0.weight"].any()  # through the gates' input
    assert not by_reward["backbone.head.weight"].any()  # it acts on the reward alone


@pytest.mark.parametrize("blocks", [2, 3])
def test_reinforcement_follows_the_exact_gradient_of_its_objective(blocks):
    """J = E[CE - alpha/N skips]: its slope over all paths, at every parameter, against 90,000 draws."""
    torch.manual_seed(4)
    backbone = toy_backbone(blocks)
    net = DynamicNetwork(backbone, Recurrent(backbone.input_widths, (False,) + (True,) * (blocks - 1)))
    images, labels = torch.randn(3, 3, 1, 1), torch.tensor([0, 1, 1])
    alpha, gates = 1.5, blocks - 1
    exact = torch.zeros(())
    for path in product((0, 1), repeat=gates):
        trace = net.forward_path(images, torch.tensor((1, *path)))
        log_prob_B = sum(
            logits.log_softmax(1)[:, option] for logits, option in zip(trace.router_logits, path, strict=True)
        )
        cost_B = F.cross_entropy(trace.logits, labels, reduction="none") - alpha / gates * path.count(0)
        exact = exact + (log_prob_B.exp() * cost_B).mean()  # type: ignore[union-attr]
    method = SkipNet(SkipNetConfig(reinforce=1.0, reinforce_reduction="mean", skip_reward=alpha))
    draws = 30_000
    batch = Batch(images.repeat(draws, 1, 1, 1), labels.repeat(draws))
    drawn = gradients(objective(method, net, batch, "reinforce").total, net)
    expected = gradients(exact, net)
    largest = max(slope.abs().max().item() for name, slope in expected.items() if name.startswith("router."))
    assert largest > 0.1
    for name, slope in expected.items():
        torch.testing.assert_close(drawn[name], slope, atol=0.02, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("gate", GATES)
def test_sharpening_makes_surer_and_changes_no_decision(gate):
    method, net = skipnet("resnet14", gate=gate, sharpen=0.05)
    net.eval()
    images = small_batch().images
    before = net(images)
    on_start = phase_named(method, "reinforce").on_start
    assert on_start is not None
    on_start(net)
    after = net(images)
    assert torch.equal(after.decisions, before.decisions)
    for sharp, plain in zip(after.router_logits, before.router_logits, strict=True):
        torch.testing.assert_close(sharp, 20 * plain, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------------------------------------- phases and settings


def plan(epochs, **settings):
    return [
        (phase.name, phase.epochs, phase.warmup) for phase in create_method("skipnet", settings=settings).phases(epochs)
    ]


def test_phases():
    assert plan(74) == [("supervised", 64, True), ("reinforce", 10, False)]
    assert plan(10, static_share=0.3) == [("static", 3, True), ("supervised", 6, True), ("reinforce", 1, False)]
    assert plan(10, reinforce_share=0) == [("supervised", 10, False)]  # then it is the training itself
    assert plan(10, reinforce_share=1) == [("reinforce", 10, False)]
    assert plan(2) == [("supervised", 1, True), ("reinforce", 1, False)]
    with pytest.raises(UserError, match="2 phases"):
        plan(1)


def test_reinforcement_has_its_own_small_rate_unless_told_otherwise():
    optimizer = phase_named(create_method("skipnet"), "reinforce").optimizer
    assert optimizer is not None
    assert (optimizer.name, optimizer.lr, optimizer.schedule) == ("sgd", 1e-4, "constant")
    assert phase_named(create_method("skipnet", settings={"reinforce_lr": None}), "reinforce").optimizer is None


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("name", ["supervised", "reinforce"])
@pytest.mark.parametrize("wrapper", ["", "spnet"])
def test_every_trainable_parameter_learns_for_two_steps(gate, name, wrapper):
    method = create_method("skipnet", wrapper, {"gate": gate})
    net = build_network(method, "resnet8", num_classes=10, input_shape=(1, 8, 8), seed=0)
    method.attach(net)
    phase = phase_named(method, name)
    parameters = freeze(net, phase)
    optimizer = torch.optim.SGD(parameters, 0.01)
    for epoch in range(2):
        losses = phase.objective(net, small_batch(), Step(phase, epoch))
        optimizer.zero_grad()
        losses.total.backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in parameters)
        optimizer.step()
    wrapped = wrapper and not phase.warmup
    assert (len(losses.trace.stage_logits) == 3) == bool(wrapper)
    assert {"path", "logits", "evolution"} <= set(losses.terms) if wrapped else "path" not in losses.terms


def test_a_target_of_one_removes_a_gate():
    net = create_model("resnet8", "skipnet", targets=(0.5, 1.0, 0.5), **SMALL)
    assert net.gated == (False, False, True)
    with pytest.raises(UserError, match="needs a gate"):
        create_model("resnet8", "skipnet", targets=(0.5, 1.0, 1.0), **SMALL)


@pytest.mark.parametrize(
    "settings",
    [
        {"gate": "lstm"},
        {"gate": "ff1", "gate_init": "xavier"},
        {"reinforce_reduction": "max"},
        {"reinforce_lr": 0},
        {"sharpen": 0},
        {"discount": 1.1},
        {"target": 2},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(UserError):
        create_method("skipnet", settings=settings)


def test_straight_through_is_the_default_of_the_supervised_phase():
    assert phase_named(create_method("skipnet"), "supervised").sampler == StraightThrough()
