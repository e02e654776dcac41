"""BlockDrop: one look at the image decides all blocks; a reward trains the policy, alone, then with the network."""

from itertools import product
from typing import Any

import pytest
import torch
from tiny import phase_named, small_batch
from torch import nn
from toy_networks import gradients, toy_backbone

from spnet import create_model
from spnet.backbones import create_backbone
from spnet.bench.macs import counted_macs
from spnet.build import build_network, create_method
from spnet.errors import UserError
from spnet.inference.runtimes import branching, gathered
from spnet.losses import blockdrop_reward, bounded_probability
from spnet.methods.base import Batch, Step
from spnet.methods.blockdrop import (
    BlockDrop,
    BlockDropConfig,
    LastOpen,
    PolicyNetwork,
    evaluating,
    open_blocks,
    self_critical_advantage,
)
from spnet.network.block import Block
from spnet.network.dynamic import DynamicNetwork, Noise
from spnet.network.sampling import Bounded, Forced
from spnet.training.step import freeze

SMALL: dict[str, Any] = {"in_channels": 1, "image_size": 8, "seed": 0}


def blockdrop(backbone="resnet8", **settings):
    """Method and 8x8 network."""
    method = create_method("blockdrop", settings=settings)
    return method, build_network(method, backbone, num_classes=10, input_shape=(1, 8, 8), seed=0)


def objective(method, net, batch, name, epoch=10**6):
    """One step's losses; without an epoch, all blocks are open."""
    phase = phase_named(method, name)
    step = Step(phase, min(epoch, phase.epochs - 1), Noise(torch.Generator().manual_seed(1)))
    return phase.objective(net, batch, step)


def set_policy(net, keep):
    """Keep probabilities, one per block, the same for every image."""
    head = net.router.trunk.head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.logit(torch.as_tensor(keep)))


def toy(blocks):
    backbone = toy_backbone(blocks)
    return DynamicNetwork(backbone, PolicyNetwork(toy_backbone(1, classes=blocks)))


# ---------------------------------------------------------------------------------------------- policy network


def test_size_of_the_policy_network():
    for backbone, policy_share in (("resnet110", 0.0484), ("resnet32", 0.178)):
        net = create_model(backbone, "blockdrop", seed=0)
        assert isinstance(net.router, PolicyNetwork)
        assert net.router.start_macs / net.static_macs == pytest.approx(policy_share, rel=5e-3)
        if backbone == "resnet110":
            assert sum(parameter.numel() for parameter in net.router.parameters()) == 78_150
            assert net.router.start_macs == 12_242_304


def test_cost_of_the_published_mean_of_16_9_of_54_blocks():
    """1.84e8 FLOPs by our count, the policy network included; the paper reports 1.81e8."""
    net = create_model("resnet110", "blockdrop")
    blocks = sum(block.macs[-1] for block in net.blocks)
    macs = net.backbone.stem_macs + net.backbone.head_macs + 16.933 / 54 * blocks + net.router.start_macs  # type: ignore[union-attr]
    assert 2 * macs == pytest.approx(1.84e8, rel=5e-3)


def test_all_decisions_are_known_before_the_first_block():
    net = create_model("resnet14", "blockdrop", **SMALL).eval()
    images = small_batch().images
    assert net.gated == (True,) * 6
    scores = [torch.stack(net.forward_path(images, torch.full((6,), option)).router_logits, 1) for option in (0, 1)]
    assert scores[0].shape == (6, 6, 2)
    assert torch.equal(scores[0], scores[1])
    assert not scores[0][:, :, 0].any()
    keep = scores[0].softmax(2)[:, :, 1]
    assert ((keep > 0) & (keep < 1)).all()


def test_greedy_decisions_are_those_of_half_or_more():
    net = create_model("resnet14", "blockdrop", **SMALL).eval()
    keep = torch.tensor([0.9, 0.3, 0.51, 0.49, 0.999, 0.001])
    set_policy(net, keep)
    images = small_batch().images
    assert net(images).decisions[0].tolist() == (keep >= 0.5).long().tolist()
    assert torch.equal(bounded_probability(keep) >= 0.5, keep >= 0.5)


@pytest.mark.parametrize(("size", "pool"), [((8, 8), 1), ((8, 8), 2), ((7, 9), 2)])
def test_torch_counts_the_same_multiply_adds(size, pool):
    method = create_method("blockdrop", settings={"policy_image_pool": pool})
    net = build_network(method, "resnet14", num_classes=10, input_shape=(3, *size), seed=0)
    images = torch.rand(1, 3, *size)
    for path in ([1] * 6, [0] * 6, [1, 0, 1, 0, 1, 0]):
        decisions = torch.tensor(path)
        assert counted_macs(net, images, decisions) == net.forward_path(images, decisions).macs.item()


def test_each_dropped_block_saves_its_multiply_adds():
    net = create_model("resnet14", "blockdrop", seed=0)
    path = torch.ones(6, dtype=torch.long)
    images = torch.rand(1, 3, 32, 32)
    assert net.forward_path(images, path).macs.item() == net.static_macs + net.router.start_macs  # type: ignore[union-attr]
    path[5] = 0
    assert net.forward_path(images, path).macs.item() == net.static_macs + net.router.start_macs - 4_718_592  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------------- block rule, test rule


def test_all_blocks_kept_is_the_plain_resnet():
    net = create_model("resnet14", "blockdrop", **SMALL).eval()
    plain = create_model("resnet14", "static", skip_rule="plain", shortcut="avgpool", **SMALL).eval()
    images = small_batch().images
    assert torch.equal(net.forward_path(images, torch.ones(6, dtype=torch.long)).logits, plain(images).logits)


def test_a_dropped_transition_is_a_pooled_and_padded_input():
    block = create_model("resnet8", "blockdrop", **SMALL).blocks[1]
    x = torch.full((1, 16, 4, 4), float("inf"))
    x[:, :, :2, :2] = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    dropped = block.run(x, 0)
    assert dropped.shape == (1, 32, 2, 2)
    assert (dropped[:, :16, 0, 0] == 3.0).all()
    assert not dropped[:, 16:].any()  # real zeros, whatever the features are


def test_an_image_takes_the_same_path_alone_in_any_batch_and_again():
    net = create_model("resnet20", "blockdrop", **SMALL).eval()
    images = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    whole = net(images)
    assert torch.equal(whole.logits, net(images).logits)
    assert 0 < whole.decisions.float().mean() < 1
    for i in range(len(images)):
        alone = net(images[i : i + 1], executor=branching)
        assert torch.equal(alone.decisions[0], whole.decisions[i])
        torch.testing.assert_close(alone.logits[0], whole.logits[i], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net(images, executor=gathered).logits, whole.logits, atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------------------------------- reward and advantage


class Adds(Block):
    """A block that adds 2 and costs next to nothing: whether it ran can be read off its output."""

    num_options = 2
    macs = (0, 1)
    identity_skip = True

    def run(self, x, option):
        return x + 2.0 * option

    def mix(self, x, gate_BK):
        return x + 2.0 * gate_BK[:, 1, None, None, None]


def worked_net(keep=(0.9, 0.3)):
    """The specification's example, K = 2: class 0 is predicted if the first block runs, else class 1."""
    net = toy(2)
    backbone = toy_backbone(2, width=1)
    backbone.blocks[0] = Adds()
    with torch.no_grad():
        backbone.stem.weight.zero_()  # type: ignore[operator]
        backbone.stem.bias.zero_()  # type: ignore[operator]
        backbone.blocks[1].conv.weight.zero_()  # type: ignore[union-attr]
        backbone.blocks[1].conv.bias.zero_()  # type: ignore[union-attr]
        backbone.head.weight.copy_(torch.tensor([[1.0], [0.0]]))  # type: ignore[operator]
        backbone.head.bias.copy_(torch.tensor([-1.0, 0.0]))  # type: ignore[operator]
    net = DynamicNetwork(backbone, PolicyNetwork(toy_backbone(1, width=1, classes=2)))
    set_policy(net, keep)
    return net


@pytest.mark.parametrize(
    ("path", "label", "advantage", "log_prob", "loss"),
    [
        ((1, 0), 0, 0.0, -0.779141, 0.0),  # the greedy path itself
        ((0, 0), 0, -1.75, -1.825109, -3.193941),  # wrong where the greedy path is right
        ((0, 0), 1, 2.0, -1.825109, 3.650218),  # the other way round: R = 1 against -1
        ((1, 1), 0, -0.75, None, None),  # right, but dearer
    ],
)
def test_worked_advantages(path, label, advantage, log_prob, loss):
    net = worked_net()
    batch = Batch(torch.zeros(400, 1, 1, 1), torch.full((400,), label))
    trace = net(batch.images, sampler=Bounded(0.8), noise=Noise(torch.Generator().manual_seed(0)))
    advantage_B, watched = self_critical_advantage(net, batch, trace, penalty=-1.0)
    chosen = (trace.decisions == torch.tensor(path)).all(1)
    assert chosen.any()
    assert advantage_B[chosen].unique().tolist() == pytest.approx([advantage])
    assert watched["greedy_kept"] == 1
    assert watched["greedy_reward"] == (0.75 if label == 0 else -1)
    if log_prob is not None:
        log_prob_B = trace.log_prob.sum(1)[chosen]
        torch.testing.assert_close(log_prob_B, torch.full_like(log_prob_B, log_prob), atol=1e-6, rtol=0)
        torch.testing.assert_close(
            -advantage_B[chosen] * log_prob_B, torch.full_like(log_prob_B, loss), atol=1e-5, rtol=0
        )


def test_worked_bonus_and_first_phase_loss():
    net = worked_net()
    batch = Batch(torch.zeros(64, 1, 1, 1), torch.zeros(64, dtype=torch.long))
    for form, bonus in (("entropy", 1.237121), ("released", 0.590500)):
        losses = objective(BlockDrop(BlockDropConfig(exploration_form=form)), net, batch, "curriculum")
        assert losses.terms["exploration"].item() == pytest.approx(-0.1 * bonus, abs=1e-6)
        assert losses.watched["exploration"].item() == pytest.approx(bonus, abs=1e-5)
        advantage_B, _ = self_critical_advantage(net, batch, losses.trace, -1.0)
        expected = -(advantage_B * losses.trace.log_prob.sum(1)).mean()
        torch.testing.assert_close(losses.terms["policy"], expected)


@pytest.mark.parametrize(("name", "penalty"), [("curriculum", -1), ("finetune", -5)])
def test_a_wrong_prediction_costs_the_penalty_of_its_phase(name, penalty):
    net = worked_net(keep=(1 - 1e-7, 0.5))  # always class 0
    for label, reward in ((1, penalty), (0, 0.75)):
        losses = objective(BlockDrop(), net, Batch(torch.zeros(1, 1, 1, 1), torch.tensor([label])), name)
        assert losses.watched["greedy_reward"] == reward
        losses.total.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_the_greedy_path_earns_nothing_and_pulls_nothing_whatever_the_mode():
    """Drawn in train mode, compared in eval mode: predictions differ, the advantage does not."""
    method, net = blockdrop("resnet8", policy_bound=1.0)
    set_policy(net, (1 - 1e-7,) * 3)
    images, path = small_batch(32).images, torch.ones(3, dtype=torch.long)
    twin = blockdrop("resnet8")[1]
    labels = twin.forward_path(images, path).logits.argmax(1)
    losses = objective(method, net, Batch(images, labels), "finetune")
    assert (losses.trace.decisions == 1).all()
    assert losses.watched["reward"] == 0  # every prediction right, every block kept
    assert losses.watched["greedy_reward"] < 0  # some wrong in eval mode
    assert losses.terms["policy"].item() == 0.0
    assert not any(slope.any() for slope in gradients(losses.terms["policy"], net).values())


def test_the_curriculums_gradient_is_exact_in_expectation():
    """J = -E[R] over all paths, at every parameter of the policy, against 90,000 draws."""
    torch.manual_seed(6)
    net = toy(2)
    images, labels = torch.randn(3, 3, 1, 1), torch.tensor([0, 1, 1])
    exact = torch.zeros(())
    for path in product((0, 1), repeat=2):
        trace = net.forward_path(images, torch.tensor(path))
        keep_BK = bounded_probability(torch.stack(trace.router_logits, 1).softmax(2)[:, :, 1])
        chance_B = torch.where(torch.tensor(path) == 1, keep_BK, 1 - keep_BK).prod(1)
        correct_B = trace.logits.argmax(1) == labels
        reward_B = blockdrop_reward(correct_B, torch.full((3,), sum(path)), 2, -1.0)
        exact = exact - (chance_B * reward_B).mean()
    method = BlockDrop(BlockDropConfig(exploration=0.0))
    batch = Batch(images.repeat(30_000, 1, 1, 1), labels.repeat(30_000))
    drawn = gradients(objective(method, net, batch, "curriculum").total, net)
    expected = gradients(exact, net)
    assert max(slope.abs().max().item() for slope in expected.values()) > 0.1
    for name, slope in expected.items():
        torch.testing.assert_close(
            drawn[name], slope, atol=0.015, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_policy_learns_to_drop_the_block_that_does_not_matter():
    net = worked_net(keep=(0.6, 0.8))
    method = BlockDrop()
    phase = phase_named(method, "curriculum")
    head = net.router.trunk.head  # type: ignore[union-attr]
    optimizer = torch.optim.Adam(head.parameters(), 0.04)  # type: ignore[union-attr]
    batch = Batch(torch.zeros(64, 1, 1, 1), torch.zeros(64, dtype=torch.long))
    noise = Noise(torch.Generator().manual_seed(0))
    for _ in range(100):
        losses = phase.objective(net, batch, Step(phase, phase.epochs - 1, noise))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    keep_first, keep_second = head.bias.sigmoid().tolist()  # type: ignore[union-attr]
    assert keep_first > 0.8
    assert keep_second < 0.3


# ---------------------------------------------------------------------------------------------- curriculum


def test_how_many_blocks_are_open():
    assert [open_blocks(epoch, 60, 54) for epoch in (0, 1, 52, 53, 59)] == [1, 2, 53, 54, 54]
    assert [open_blocks(epoch, 3, 3) for epoch in range(3)] == [1, 2, 3]
    assert [open_blocks(epoch, 4, 9) for epoch in range(4)] == [3, 5, 7, 9]
    assert open_blocks(0, 1, 54) == 54


def test_closed_blocks_run_for_certain():
    sampler = LastOpen(Bounded(0.8), first=2)
    logits = torch.tensor([[0.0, -9.0]]).expand(50, 2).clone().requires_grad_()
    closed, opened = sampler(1, logits, None), sampler(2, logits, None)
    assert (closed.gate_BK[:, 1] == 1).all()
    assert not closed.log_prob_B.any()
    assert not closed.log_prob_B.requires_grad
    assert (opened.gate_BK[:, 0] == 1).any()


@pytest.mark.parametrize("epoch", [0, 1, 4, 5, 7])
def test_in_epoch_e_only_the_last_blocks_follow_the_policy(epoch):
    method, net = blockdrop("resnet14", static_share=0.0, finetune_share=0.5)
    set_policy(net, (0.01,) * 6)
    batch = small_batch(64)
    losses = objective(method, net, batch, "curriculum", epoch)
    closed = max(0, 6 - (epoch + 1))
    assert (losses.trace.decisions[:, :closed] == 1).all()
    assert (losses.trace.decisions[:, closed:] == 0).any(0).all()
    assert losses.watched["greedy_kept"] == closed  # the greedy path too
    slopes = gradients(losses.total, net)["router.trunk.head.bias"]
    assert not slopes[:closed].any()
    assert (slopes[closed:] != 0).all()


def test_the_released_bonus_is_not_masked():
    method, net = blockdrop("resnet14", exploration_form="released", static_share=0.0, finetune_share=0.5)
    losses = objective(method, net, small_batch(), "curriculum", epoch=0)
    assert (gradients(losses.terms["exploration"], net)["router.trunk.head.bias"] != 0).all()


def test_the_curriculum_leaves_the_network_as_it_is_and_the_policy_runs_once():
    method, net = blockdrop("resnet8")
    phase = phase_named(method, "curriculum")
    optimizer = torch.optim.Adam(freeze(net, phase), 1e-3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for epoch in range(2):
        losses = phase.objective(net, small_batch(), Step(phase, epoch))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    after = net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("backbone."))
    assert all(parameter.grad is None for parameter in net.backbone.parameters())
    assert not torch.equal(after["router.trunk.head.bias"], before["router.trunk.head.bias"])
    assert after["router.trunk.stem.1.num_batches_tracked"] == 2


# ---------------------------------------------------------------------------------------------- joint finetuning


def test_cross_entropy_trains_the_network_and_the_reward_the_policy():
    method, net = blockdrop("resnet14")
    losses = objective(method, net, small_batch(64), "finetune")
    by_prediction = gradients(losses.terms["classification"], net)
    by_reward = gradients(losses.terms["policy"], net)
    for name in by_reward:
        assert not (by_prediction if name.startswith("router.") else by_reward)[name].any()
    assert by_prediction["backbone.stem.0.weight"].any()
    assert by_reward["router.trunk.stem.0.weight"].any()


def test_batch_norms_see_one_path_a_step():
    method, net = blockdrop("resnet8")
    freeze(net, phase_named(method, "finetune"))
    losses = objective(method, net, small_batch(), "finetune")
    counts = {int(value) for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {1}
    assert net.backbone.training
    twin = build_network(method, "resnet8", num_classes=10, input_shape=(1, 8, 8), seed=0)
    twin(small_batch().images, sampler=Forced(losses.trace.decisions))
    for name, value in twin.state_dict().items():
        assert torch.equal(value, net.state_dict()[name])  # statistics of the drawn path and no other


def test_the_policy_loss_is_summed_or_averaged_as_said():
    values = {}
    for reduction in ("sum", "mean"):
        method, net = blockdrop("resnet8", finetune_reduction=reduction)
        values[reduction] = objective(method, net, small_batch(16), "finetune").terms["policy"].item()
    assert values["sum"] != 0
    assert values["sum"] == pytest.approx(16 * values["mean"], rel=1e-5)


def test_eval_mode_for_a_while_gives_each_part_its_mode_back():
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    module[1].eval()
    module[1][1].train()  # type: ignore[index]
    modes = [part.training for part in module.modules()]
    with pytest.raises(RuntimeError, match="stop"), evaluating(module):
        assert not any(part.training for part in module.modules())
        raise RuntimeError("stop")
    assert [part.training for part in module.modules()] == modes


# ---------------------------------------------------------------------------------------------- phases and settings


def plan(epochs, **settings):
    return [(p.name, p.epochs, p.warmup) for p in create_method("blockdrop", settings=settings).phases(epochs)]


def test_phases():
    assert plan(10) == [("static", 3, True), ("curriculum", 2, True), ("finetune", 5, False)]
    assert plan(7000, static_share=0.0, finetune_share=2 / 7) == [("curriculum", 5000, True), ("finetune", 2000, False)]
    assert plan(10, static_share=0.2, uniform_share=0.3, finetune_share=0.2) == [
        ("static", 2, True),
        ("uniform", 3, True),
        ("curriculum", 3, True),
        ("finetune", 2, False),
    ]
    assert plan(10, finetune_share=0.0) == [("static", 3, True), ("curriculum", 7, False)]  # policy only
    with pytest.raises(UserError, match="3 phases"):
        plan(2)


def test_optimizers():
    curriculum, finetune = (
        phase_named(create_method("blockdrop"), name).optimizer for name in ("curriculum", "finetune")
    )
    assert curriculum is not None
    assert finetune is not None
    assert (curriculum.name, curriculum.lr, curriculum.weight_decay, curriculum.schedule) == (
        "adam",
        1e-3,
        0,
        "constant",
    )
    assert (finetune.name, finetune.lr, finetune.weight_decay, finetune.milestones) == ("adam", 1e-4, 0, (0.8,))


@pytest.mark.parametrize("name", ["static", "curriculum", "finetune"])
@pytest.mark.parametrize("wrapper", ["", "spnet"])
def test_every_trainable_parameter_learns_for_two_steps_and_no_other_moves(name, wrapper):
    method = create_method("blockdrop", wrapper)
    net = build_network(method, "resnet8", num_classes=10, input_shape=(1, 8, 8), seed=0)
    method.attach(net)
    phase = phase_named(method, name)
    parameters = freeze(net, phase)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(parameters, 0.01)
    for epoch in range(2):
        losses = phase.objective(net, small_batch(), Step(phase, epoch))
        optimizer.zero_grad()
        losses.total.backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in parameters)
        optimizer.step()
    moved = {key.split(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    expected = {"static": {"backbone"}, "curriculum": {"router"}, "finetune": {"backbone", "router"}}[name]
    assert moved == (expected | {"stage_heads"} if wrapper and name == "finetune" else expected)
    if wrapper and name == "finetune":
        assert {"policy", "classification", "path", "logits", "evolution"} == set(losses.terms)


@pytest.mark.parametrize(
    "settings",
    [
        {"finetune_penalty": 5.0},
        {"curriculum_penalty": 1.0},
        {"policy_bound": 0.4},
        {"exploration_form": "half"},
        {"finetune_reduction": "max"},
        {"policy_lr": 0.0},
        {"policy_image_pool": 0},
        {"policy_backbone": "resnet9"},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(UserError):
        create_model("resnet8", "blockdrop", **settings)


def test_the_trunk_has_a_class_per_block():
    trunk = create_backbone("resnet8", num_classes=7, input_shape=(1, 8, 8))
    router = PolicyNetwork(trunk)
    assert router.gated == (True,) * 7
    assert router.macs == (0,) * 7
    state = router.start(torch.rand(2, 1, 8, 8), None)
    assert router.logits(state, 6, torch.zeros(()), torch.zeros(()))[0].shape == (2, 2)
