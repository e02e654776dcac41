"""Backbones: their sizes, what a block's options are, and that the multiply-add tables are what torch counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import agreeing, full_path, images, lively, paths, plain_resnet
from torch import Tensor

from spnet.backbones import BlockRule, create_backbone, list_backbones
from spnet.backbones.cifar_resnet import BasicBlock, cifar_resnet
from spnet.bench.macs import counted_macs
from spnet.errors import UserError
from spnet.inference.runtimes import branching, gathered
from spnet.methods import method_class
from spnet.network.dynamic import DynamicNetwork
from spnet.network.heads import StageHeads
from spnet.routers import PooledMLP

RULES = [
    BlockRule(skip, shortcut, options)
    for skip in ("relu", "plain", "own-projection")
    for shortcut in ("subsample", "avgpool", "projection")
    for options in (2, 3)
]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.skip}-{rule.shortcut}-{rule.options}")


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def dynamic(rule: BlockRule, shape: tuple[int, int, int] = (2, 7, 5), aligned: bool = True) -> DynamicNetwork:
    """ResNet-8 under a rule, with a router before each block and stage heads."""
    backbone = create_backbone("resnet8", num_classes=4, input_shape=shape, skip_rule=rule)
    options = [rule.options] * len(backbone.blocks)
    router = PooledMLP(backbone.input_widths, options, [True] * len(options), hidden=6, lookahead=2)
    return lively(DynamicNetwork(backbone, router, StageHeads(backbone.stage_widths, 4, aligned)))


@pytest.mark.parametrize(
    ("name", "shortcut", "macs", "size"),
    [
        ("resnet20", "subsample", 40_551_040, 269_722),
        ("resnet32", "subsample", 68_862_592, 464_154),
        ("resnet110", "subsample", 252_887_680, 1_727_962),
        ("resnet110", "projection", 253_149_824, 1_730_714),
    ],
)
def test_published_sizes(name: str, shortcut: str, macs: int, size: int):
    net = create_backbone(name, num_classes=10, skip_rule=BlockRule(shortcut=shortcut))  # type: ignore[arg-type]
    assert net.static_macs == macs
    assert parameters(net) == size


def test_resnet110_in_parts():
    net = create_backbone("resnet110", num_classes=10)
    assert (net.stem_macs, net.head_macs) == (442_368, 640)
    transitions = {18, 36}
    for i, block in enumerate(net.blocks):
        assert block.macs == (0, 3_538_944 if i in transitions else 4_718_592)
    projected = create_backbone("resnet110", num_classes=10, skip_rule=BlockRule(shortcut="projection"))
    assert {projected.blocks[i].macs for i in transitions} == {(131_072, 3_538_944 + 131_072)}


@pytest.mark.parametrize("name", list_backbones())
def test_depth_counts_the_layers_on_the_longest_path(name: str):
    net = create_backbone(name, num_classes=10)
    assert 2 + 2 * len(net.blocks) == int(name.removeprefix("resnet"))
    assert net.name == name and sum(net.stages.lengths) == len(net.blocks)


@pytest.mark.parametrize("depth", [0, 2, 7, 9, 21, -6])
def test_depths_that_are_no_resnet(depth: int):
    with pytest.raises(UserError, match="6n \\+ 2"):
        cifar_resnet(depth, num_classes=2)


@pytest.mark.parametrize(
    "wrong", [{"skip": "rely"}, {"shortcut": "average"}, {"options": 1}, {"options": 4}], ids=lambda wrong: str(wrong)
)
def test_rules_that_do_not_exist(wrong: dict):
    with pytest.raises(UserError):
        BlockRule(**wrong)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 17), (5, 1, 1), (4, 2, 9)])
@pytest.mark.parametrize("shortcut", ["subsample", "avgpool", "projection"])
def test_any_image_size_and_channels(shape: tuple[int, int, int], shortcut: str):
    rule = BlockRule(shortcut=shortcut)  # type: ignore[arg-type]
    net = lively(DynamicNetwork(create_backbone("resnet8", num_classes=3, input_shape=shape, skip_rule=rule)))
    x = images(2, shape)
    assert net(x).logits.shape == (2, 3)
    assert counted_macs(net, x) == 2 * net.static_macs


def test_every_block_run_is_the_plain_resnet():
    net = lively(DynamicNetwork(create_backbone("resnet14", num_classes=10, input_shape=(3, 16, 16))))
    x = images(3, (3, 16, 16))
    assert agreeing(net(x).logits, plain_resnet(net.state_dict(), x), 1e-6)


@every_rule
@settings(max_examples=8, deadline=None)
@given(
    transition=st.booleans(),
    batch=st.sampled_from([1, 3]),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_mixing_with_a_one_hot_gate_is_running(
    rule: BlockRule, transition: bool, batch: int, height: int, width: int, seed: int
):
    block = BasicBlock(4, 6 if transition else 4, 2 if transition else 1, rule).eval()
    x = images(batch, (4, height, width), seed).relu()
    for option in range(rule.options):
        gate = torch.eye(rule.options)[option].expand(batch, -1)
        assert torch.equal(block.mix(x, gate), block.run(x, option))


def lone_block(rule: BlockRule, transition: bool) -> BasicBlock:
    """A block whose residual branch often outweighs its shortcut, so that every ReLU has something to cut."""
    block = BasicBlock(4, 6 if transition else 4, 2 if transition else 1, rule).eval()
    torch.nn.init.constant_(block.residual2[1].weight, 4.0)  # type: ignore[arg-type]
    return block


def published(method: str, block: BasicBlock, x: Tensor, gate_BK: Tensor) -> Tensor:
    """A block's output under any gate, as the method's paper writes it."""
    gates = [gate_B.view(-1, 1, 1, 1) for gate_B in gate_BK.unbind(1)]
    shortcut, h = block.shortcut(x), block.residual1(x).relu()
    full = (shortcut + block.residual2(h)).relu()
    match method:
        case "convnet-aig" | "spnet":  # the gate inside the ReLU
            return (shortcut + gates[1] * block.residual2(h)).relu()
        case "skipnet" | "blockdrop":
            return gates[0] * shortcut + gates[1] * full
        case "codinet":
            return gates[0] * block.own_skip(x) + gates[1] * full
        case _:
            assert method == "rdi-net"
            return gates[0] * shortcut.relu() + gates[1] * (shortcut + h).relu() + gates[2] * full


@pytest.mark.parametrize("method", ["convnet-aig", "spnet", "skipnet", "blockdrop", "codinet", "rdi-net"])
@pytest.mark.parametrize("transition", [False, True])
def test_a_soft_gate_mixes_as_published(method: str, transition: bool):
    """At 0 and 1 a gate inside the ReLU and a mixture outside it agree: only what lies between tells them apart."""
    rule = method_class("dynamic" if method == "spnet" else method).rule
    block = lone_block(rule, transition)
    x = images(5, (4, 5, 5)).relu()
    gate = images(5, (rule.options, 1, 1), seed=1).flatten(1).softmax(1)
    assert gate.min() > 0.02
    torch.testing.assert_close(block.mix(x, gate), published(method, block, x, gate), atol=1e-6, rtol=0)


@pytest.mark.parametrize("transition", [False, True])
@pytest.mark.parametrize("ran", [0.0, 1.0])
def test_the_slope_of_a_hard_gate_is_the_residual_where_the_output_is_positive(ran: float, transition: bool):
    """What straight-through training reads of a block that was skipped, too; the gate of the skip has no say."""
    block = lone_block(BlockRule(), transition)
    x = images(3, (4, 5, 5)).relu()
    gate = torch.tensor([[1 - ran, ran]]).repeat(3, 1).requires_grad_()
    out = block.mix(x, gate)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    (slope,) = torch.autograd.grad((out * weight).sum(), gate)
    with torch.no_grad():
        residual = block.residual2(block.residual1(x).relu())
        positive = block.shortcut(x) + ran * residual > 0
    expected = (weight * positive * residual).sum((1, 2, 3))
    assert expected.abs().min() > 0.01
    torch.testing.assert_close(slope, torch.stack([torch.zeros(3), expected], 1), atol=1e-5, rtol=1e-5)


@every_rule
def test_the_batch_may_mix_options(rule: BlockRule):
    block = BasicBlock(4, 6, 2, rule).eval()
    x = images(6, (4, 5, 5)).relu()
    options = torch.arange(6) % rule.options
    mixed = block.mix(x, torch.eye(rule.options)[options])
    for b, option in enumerate(options.tolist()):
        assert agreeing(mixed[b : b + 1], block.run(x[b : b + 1], option), 1e-6)


@every_rule
def test_the_gate_gets_a_gradient(rule: BlockRule):
    block = BasicBlock(4, 4, 1, rule).eval()
    gate = torch.full((2, rule.options), 1 / rule.options, requires_grad=True)
    block.mix(images(2, (4, 3, 3)).relu(), gate).sum().backward()
    assert gate.grad is not None and gate.grad.isfinite().all() and gate.grad[:, -1].abs().min() > 0


@every_rule
def test_identity_skip_is_what_it_says(rule: BlockRule):
    x = images(2, (4, 3, 3)).relu()
    plain, transition = BasicBlock(4, 4, 1, rule).eval(), BasicBlock(4, 6, 2, rule).eval()
    assert plain.identity_skip and torch.equal(plain.run(x, 0), x)
    assert not transition.identity_skip and transition.run(x, 0).shape == (2, 6, 2, 2)


def test_what_each_skip_rule_leaves_at_a_transition():
    x = images(3, (4, 5, 5)).relu()

    def skip(rule: BlockRule) -> Tensor:
        torch.manual_seed(0)
        return BasicBlock(4, 6, 2, rule).eval().run(x, 0)

    subsampled = skip(BlockRule())
    assert torch.equal(subsampled[:, :4], x[:, :, ::2, ::2]) and not subsampled[:, 4:].any()
    assert torch.equal(skip(BlockRule(skip="plain")), subsampled)
    averaged = skip(BlockRule(shortcut="avgpool"))
    assert torch.allclose(averaged[:, :4, 0, 0], x[:, :, :2, :2].mean((2, 3)))
    assert torch.equal(averaged[:, :4, 2, 2], x[:, :, 4, 4])  # the mean of what is there at an odd edge
    assert (skip(BlockRule(shortcut="projection")) >= 0).all()
    assert (skip(BlockRule(skip="plain", shortcut="projection")) < 0).any()


def test_the_half_option_stops_after_the_first_convolution():
    block = BasicBlock(4, 4, 1, BlockRule(options=3)).eval()
    x = images(2, (4, 3, 3)).relu()
    half = (x + block.residual1(x).relu()).relu()
    assert torch.equal(block.run(x, 1), half)


@every_rule
@pytest.mark.parametrize("executor", [branching, gathered], ids=lambda executor: executor.__name__)
def test_the_table_is_what_torch_counts(rule: BlockRule, executor):
    """Convolutions and linears of stem, blocks, routers and heads, counted while skipped work is really left out."""
    net = dynamic(rule)
    batch = 1 if executor is branching else 5
    x = images(batch, (2, 7, 5))
    chosen = [paths(net, batch, seed) for seed in range(3)] + [
        full_path(net).expand(batch, -1),
        torch.zeros(batch, 3).long(),
    ]
    for decisions in chosen:
        expected = net.forward_path(x, decisions).macs
        assert counted_macs(net, x, decisions, executor) == int(expected.sum())
    assert counted_macs(net, x, executor=executor) == int(net(x).macs.sum())


def test_the_half_option_costs_the_first_convolution():
    net = create_backbone("resnet8", num_classes=4, input_shape=(2, 3, 3), skip_rule=BlockRule(options=3))
    assert net.blocks[0].macs == (0, 16 * 16 * 9 * 9, 2 * 16 * 16 * 9 * 9)


def test_heads_that_do_not_run_cost_nothing():
    net, x = dynamic(BlockRule()), images(4, (2, 7, 5))
    assert net.stage_heads is not None
    assert torch.equal(net(x).macs - net(x, heads=False).macs, torch.full((4,), sum(net.stage_heads.macs)))
    assert net.stage_heads.macs == (16 * 64 + 64 * 4, 32 * 64 + 64 * 4)


def test_initial_weights_keep_the_signal_alive():
    net = DynamicNetwork(create_backbone("resnet56", num_classes=10, input_shape=(3, 8, 8))).train()
    trace = net(images(16, (3, 8, 8)))
    assert trace.logits.isfinite().all() and 0.01 < trace.block_features[-1].std().item() < 100
