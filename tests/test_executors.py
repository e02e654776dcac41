"""Executors do less work and change nothing else: `branching`, `gathered` against `masked`; early exit; the engine."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SHAPE, agreeing, empty_path, full_path, images, lively, paths, routed_alike
from torch import Tensor

from spnet import DynamicNetwork, Engine, Trace, UserError, create_model, list_methods
from spnet.backbones import BlockRule, create_backbone
from spnet.bench.macs import counted_macs
from spnet.build import seeded
from spnet.inference.runtimes import EAGER, branching, gathered, masked
from spnet.network.sampling import Argmax
from spnet.routers import PooledMLP


def network(channels_last: bool = False, **config) -> DynamicNetwork:
    net = lively(create_model("resnet20", "spnet", in_channels=1, image_size=8, seed=0, **config))
    return net.to(memory_format=torch.channels_last) if channels_last else net  # type: ignore[call-overload]


def three_options(skip: str) -> DynamicNetwork:
    rule = BlockRule(skip, "projection", 3)  # type: ignore[arg-type]
    with seeded(8, "three options"):
        backbone = create_backbone("resnet14", num_classes=10, input_shape=SHAPE, skip_rule=rule)
    return lively(DynamicNetwork(backbone, PooledMLP(backbone.input_widths, [3] * 6, [True] * 6, hidden=8)))


NETWORKS = {
    "two options": network(),
    "channels last": network(channels_last=True),
    "lookahead": network(lookahead=4),
    "some ungated": network(targets=(0.5, 1, 0.5, 1, 0.5, 0.5, 0.5, 0.5, 1)),
    "three options": three_options("relu"),
    "own projection": three_options("own-projection"),
    "plain skip": three_options("plain"),
}
every_network = pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS.keys())


def one_by_one(net: DynamicNetwork, x: Tensor, decisions: Tensor) -> list[Trace]:
    """Branching takes one path a call."""
    return [net.forward_path(x[b : b + 1], decisions[b], executor=branching) for b in range(len(x))]


def same_forced(net: DynamicNetwork, x: Tensor, decisions: Tensor) -> None:
    """Forced-path logits, features and costs agree across the executors."""
    with torch.no_grad():
        expected = net.forward_path(x, decisions)
        result = net.forward_path(x, decisions, executor=gathered)
        alone = one_by_one(net, x, decisions)
    assert agreeing(result.logits, expected.logits)
    assert agreeing(torch.cat([trace.logits for trace in alone]), expected.logits)
    assert torch.equal(result.macs, expected.macs)
    assert torch.equal(torch.cat([trace.macs for trace in alone]), expected.macs)
    assert torch.equal(result.decisions, expected.decisions)
    for feature, reference in zip(result.block_features, expected.block_features, strict=True):
        assert agreeing(feature, reference)


@every_network
@pytest.mark.parametrize("batch", [1, 2, 33])
def test_forced_paths_agree(net: DynamicNetwork, batch: int):
    same_forced(net, images(batch), paths(net, batch))


@every_network
@pytest.mark.parametrize("path", [full_path, empty_path], ids=["all run", "all skip"])
def test_extremes_agree(net: DynamicNetwork, path):
    same_forced(net, images(3), path(net).expand(3, -1))


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(list(NETWORKS)), batch=st.integers(1, 6), seed=st.integers(0, 9999))
def test_any_path_agrees(name: str, batch: int, seed: int):
    same_forced(NETWORKS[name], images(batch, seed=seed), paths(NETWORKS[name], batch, seed))


@every_network
@torch.no_grad()
def test_free_decisions_agree_where_the_margin_is_sure(net: DynamicNetwork):
    x = images(33)
    expected, result = net(x), net(x, executor=gathered)
    assert len(expected.decisions.unique(dim=0)) > 1
    sure = routed_alike(net, expected.router_logits).all(1)
    assert sure.float().mean() > 0.9
    for name in ("decisions", "macs", "exit_stage"):
        assert torch.equal(getattr(result, name)[sure], getattr(expected, name)[sure])
    assert agreeing(result.logits[sure], expected.logits[sure])
    for b in sure.nonzero().flatten()[:8]:
        alone = net(x[b : b + 1], executor=branching)
        assert torch.equal(alone.decisions[0], expected.decisions[b])
        assert agreeing(alone.logits[0], expected.logits[b])


def test_gathered_leaves_its_input_alone_and_keeps_its_layout():
    block = NETWORKS["channels last"].blocks[0]
    x = images(4, (16, 8, 8)).relu().to(memory_format=torch.channels_last)
    kept = x.clone()
    gate = torch.eye(2)[torch.tensor([0, 1, 0, 1])]
    with torch.no_grad():
        out = gathered(block, x, gate)
    assert torch.equal(x, kept) and torch.equal(out[0], x[0]) and not torch.equal(out[1], x[1])
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_branching_refuses_a_batch_that_disagrees():
    net = NETWORKS["two options"]
    with pytest.raises(ValueError, match="use batch 1, or 'gathered'"):
        branching(net.blocks[0], images(2, (16, 8, 8)), torch.eye(2))


@pytest.mark.parametrize("executor", [branching, gathered], ids=lambda executor: executor.__name__)
def test_a_skipped_residual_branch_is_never_called(executor, monkeypatch: pytest.MonkeyPatch):
    net = network()
    for block in net.backbone.blocks:
        monkeypatch.setattr(block, "residual1", None)
    x = images(1)
    net.forward_path(x, empty_path(net), executor=executor)
    with pytest.raises(TypeError):
        net.forward_path(x, full_path(net), executor=executor)


def test_masked_computes_everything_and_gathered_only_its_share():
    net, x = network(), images(8)
    decisions = paths(net, 8)
    full = int(net.forward_path(x, full_path(net)).macs.sum())
    assert counted_macs(net, x, decisions, masked) == full
    assert counted_macs(net, x, decisions, gathered) == int(net.forward_path(x, decisions).macs.sum()) < full


# Early exit


def confident(net: DynamicNetwork, x: Tensor, share: float = 0.5) -> float:
    """A confidence that about `share` of the images reach at the first stage."""
    return float(net(x).stage_logits[0].softmax(1).amax(1).quantile(1 - share))


@pytest.mark.parametrize("executor", [masked, gathered], ids=lambda executor: executor.__name__)
@pytest.mark.parametrize("batch", [1, 2, 33])
@torch.no_grad()
def test_early_exit(executor, batch: int):
    net, x = network(), images(batch)
    whole = net(x)
    confidence = confident(net, x)
    trace = net(x, executor=executor, exit_confidence=confidence)
    sure = torch.stack(
        [z.softmax(1).amax(1) >= confidence for z in whole.stage_logits[:-1]] + [torch.ones(batch).bool()]
    )
    assert torch.equal(trace.exit_stage, sure.float().argmax(0))  # the first stage that is sure
    for b, stage in enumerate(trace.exit_stage.tolist()):
        assert agreeing(trace.logits[b], whole.stage_logits[stage][b])
        reached = 3 * (stage + 1)
        assert trace.decisions[b, :reached].tolist() == whole.decisions[b, :reached].tolist()
        assert (trace.decisions[b, reached:] == -1).all()
        if stage < 2:
            assert trace.macs[b] < whole.macs[b]
        else:
            assert trace.macs[b] == whole.macs[b]
    assert trace.logits is trace.stage_logits[-1]


@torch.no_grad()
def test_early_exit_does_the_work_it_counts():
    net, x = network(), images(16)
    confidence = confident(net, x)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        trace = net(x, executor=gathered, exit_confidence=confidence)
    assert counter.get_total_flops() == 2 * int(trace.macs.sum())
    assert 0 < int((trace.exit_stage == 0).sum()) < 16


@pytest.mark.parametrize("executor", EAGER.values(), ids=EAGER.keys())
@torch.no_grad()
def test_everybody_may_leave_at_once(executor):
    """With branching at batch 1 nobody is left for the later blocks."""
    net, x = network(), images(1)
    trace = net(x, executor=executor, exit_confidence=0.0)
    assert trace.exit_stage.tolist() == [0]
    assert agreeing(trace.logits, net(x).stage_logits[0])
    assert trace.decisions[0, 3:].tolist() == [-1] * 6


@torch.no_grad()
def test_nobody_leaves_below_an_impossible_confidence():
    net, x = network(), images(5)
    trace, whole = net(x, exit_confidence=1.1), net(x)
    assert torch.equal(trace.logits, whole.logits) and torch.equal(trace.macs, whole.macs)


@torch.no_grad()
def test_lookahead_survives_the_departure_of_others():
    net, x = network(lookahead=4), images(20)
    whole, trace = net(x), net(x, exit_confidence=confident(net, x))
    stayed = trace.exit_stage == 2
    assert 0 < int(stayed.sum()) < 20
    assert torch.equal(trace.decisions[stayed], whole.decisions[stayed])


# A bound on single images


def runs(net: DynamicNetwork, x: Tensor, **rules) -> list[Trace]:
    """The same images by every executor: masked, gathered, and branching one by one."""
    with torch.no_grad():
        together = [net(x, executor=executor, **rules) for executor in (masked, gathered)]
        return together + [net(x[b : b + 1], executor=branching, **rules) for b in range(min(len(x), 3))]


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(NETWORKS)),
    method=st.sampled_from(["", *list_methods()]),
    bound=st.floats(0.15, 1.1),
    shift=st.sampled_from([0.0, 64.0]),
    exits=st.sampled_from([None, 0.15]),
    heads=st.booleans(),
    seed=st.integers(0, 99),
)
def test_no_image_costs_more_than_the_bound(
    name: str, method: str, bound: float, shift: float, exits: float | None, heads: bool, seed: int
):
    net = NETWORKS[name]
    if method:
        net = lively(create_model("resnet14", method, in_channels=1, image_size=8, seed=seed), seed)
    rules = {"max_cost": bound, "heads": heads, "exit_confidence": exits if net.stage_heads is not None else None}
    kept = net.decision_shift.clone()
    net.decision_shift.fill_(shift)
    try:
        for trace in runs(net, images(7, seed=seed), **rules):
            assert (trace.macs <= bound * net.static_macs).all()
    except UserError as error:
        assert "out of reach" in str(error)
        reach = float(str(error).split("costs ")[1].split(" ")[0])
        assert bound < reach
        for trace in runs(net, images(7, seed=seed), **rules | {"max_cost": reach}):
            assert (trace.macs <= reach * net.static_macs).all()
    finally:
        net.decision_shift.copy_(kept)


@every_network
@torch.no_grad()
def test_a_bound_spends_what_it_can_block_by_block(net: DynamicNetwork):
    """With every block wanted: each takes the dearest option that leaves enough for the least of the rest."""
    x, bound = images(2), 0.6
    kept = net.decision_shift.clone()
    try:
        net.decision_shift.fill_(64.0)
        trace = net(x, heads=False, max_cost=bound)
    finally:
        net.decision_shift.copy_(kept)
    assert net.router is not None
    path = net.cheapest_path.tolist()
    always = net.backbone.stem_macs + net.backbone.head_macs + sum(net.router.macs)
    for i in net.gated_indices:
        for option in range(1, net.options[i]):
            tried = [*path[:i], option, *path[i + 1 :]]
            if always + sum(b.macs[k] for b, k in zip(net.blocks, tried, strict=True)) <= bound * net.static_macs:
                path = tried
    assert trace.decisions.tolist() == [path] * 2
    assert 0 < sum(path) < sum(net.options) - len(net.options)


@every_network
@torch.no_grad()
def test_a_loose_bound_changes_nothing_and_a_tight_one_only_what_passes_it(net: DynamicNetwork):
    x = images(33)
    free = net(x)
    loose = net(x, max_cost=1.5)
    assert torch.equal(loose.logits, free.logits) and torch.equal(loose.decisions, free.decisions)
    bound = int(free.macs.min() + free.macs.max()) / 2 / net.static_macs
    bounded = net(x, max_cost=bound)
    cheap = free.macs <= bound * net.static_macs
    assert 0 < int(cheap.sum()) < 33
    assert torch.equal(bounded.decisions[cheap], free.decisions[cheap])
    for mine, before in zip(bounded.decisions[~cheap], free.decisions[~cheap], strict=True):
        first = int((mine != before).nonzero()[0])
        assert mine[first] < before[first]  # the first to differ is one that could not be afforded
    assert torch.equal(bounded.router_logits[0], free.router_logits[0])  # traces hold raw logits


def test_the_bound_is_one_of_the_test_rule():
    with pytest.raises(ValueError, match="leave the sampler out"):
        network()(images(2), sampler=Argmax(), max_cost=0.8)


# The engine


@pytest.mark.parametrize("executor", ["auto", *EAGER])
def test_engine_agrees_with_the_network(executor: str):
    net, x = network(), images(4)
    engine = Engine(net, executor)
    with torch.no_grad():
        expected = net(x, heads=False)
    for b in range(4):
        assert agreeing(engine(x[b : b + 1]).logits[0], expected.logits[b])
    if executor != "branching":
        assert agreeing(engine(x).logits, expected.logits)
    assert not engine(x[:1]).logits.requires_grad
    forced = engine(x[:1], force=full_path(net))
    assert (forced.decisions == 1).all() and len(forced.router_logits) == 9
    assert torch.equal(forced.macs, net.forward_path(x[:1], full_path(net), heads=False).macs)


def test_engine_calibrates_to_its_budget():
    net = lively(create_model("resnet8", "spnet", in_channels=1, image_size=8, seed=0))
    pixels = torch.randint(0, 256, (200, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    engine = Engine(net, "gathered", budget=0.6)
    with pytest.raises(UserError, match=r"call engine\.calibrate"):
        engine(pixels[:1])
    assert engine.calibrate(pixels) == pytest.approx(0.6, rel=0.02)
    assert engine(pixels).macs.double().mean().item() / net.static_macs == pytest.approx(0.6, rel=0.02)
    assert engine.calibrate(pixels, budget=0.8) == pytest.approx(0.8, rel=0.02)


@pytest.mark.parametrize("rules", [{"max_cost": 0.4}, {"exit_confidence": 0.2}], ids=str)
def test_a_budget_is_met_under_the_engines_other_rules(rules: dict):
    net = network()
    pixels = torch.randint(0, 256, (200, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    engine = Engine(net, "gathered", budget=0.3, **rules)
    assert engine.calibrate(pixels) == pytest.approx(0.3, rel=0.02)
    macs = engine(pixels).macs.double() / net.static_macs
    assert macs.mean().item() == pytest.approx(0.3, rel=0.02)
    assert macs.max() <= rules.get("max_cost", 1.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"executor": "gatherd"}, "Did you mean 'gathered'?"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"budget": 0.0}, "share of the static cost"),
        ({"budget": 60}, "share of the static cost"),
        ({"exit_confidence": 90}, "probability"),
        ({"max_cost": 70}, "max_cost is a share of the static cost"),
        ({"max_cost": float("nan")}, "max_cost is a share of the static cost"),
        ({"max_cost": 0.01}, "max_cost 0.01 is out of reach: the cheapest path costs 0."),
    ],
)
def test_engines_that_cannot_be(settings: dict, message: str):
    with pytest.raises(UserError) as caught:
        Engine(network(), **settings)
    assert message in str(caught.value)


def test_engine_wants_stage_heads_for_early_exit():
    with pytest.raises(UserError, match="needs stage heads"):
        Engine(create_model("resnet8", "convnet-aig"), exit_confidence=0.9)


def test_engine_refuses_images_that_are_not_finite():
    x = images(1)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        Engine(network())(x)


def test_engine_needs_a_budget_to_calibrate():
    with pytest.raises(UserError, match="needs a budget"):
        Engine(network()).calibrate(torch.zeros(4, *SHAPE, dtype=torch.uint8))


def test_an_engine_leaves_training_mode_and_the_statistics_alone():
    net = network()
    engine = Engine(net, "gathered")
    expected, mean = engine(images(5)).logits, net.backbone.stem[1].running_mean.clone()  # type: ignore[index]
    net.train()
    assert torch.equal(engine(images(5)).logits, expected) and not net.training
    assert torch.equal(net.backbone.stem[1].running_mean, mean)  # type: ignore[index]


@pytest.mark.parametrize("executor", ["masked", "branching", "gathered", "onnx"])
def test_all_executors_take_the_same_input(executor: str):
    engine = Engine(network(), executor)
    x = images(1)
    assert torch.equal(engine(x.double()).decisions, engine(x).decisions)
    with pytest.raises(UserError, match="there are no images to run"):
        engine(x[:0])
    with pytest.raises(UserError, match="decisions are whole numbers"):
        engine(x, torch.full((9,), 0.5))


@pytest.mark.parametrize("share", [0, 70, float("nan")])
def test_an_expected_cost_is_a_share(share: float):
    with pytest.raises(UserError, match="expected_cost is a share of the static cost"):
        Engine(network(), expected_cost=share)


def test_auto_does_without_onnx_where_a_part_has_no_form():
    class Own(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(x.sum() > -1e9)  # a number in Python, which no graph can hold

    net = network()
    net.backbone.stem[2] = Own()  # type: ignore[index]
    assert Engine(net, "auto").choice(4) == "gathered"
    assert Engine(network().to(torch.bfloat16), "auto").choice(1) == "branching"  # type: ignore[arg-type]
    with pytest.raises(UserError, match="computes in float32"):
        Engine(network().to(torch.bfloat16), "onnx")  # type: ignore[arg-type]


def test_calibrating_takes_the_weights_anew():
    net, pictures = network(), torch.randint(0, 256, (64, *SHAPE), dtype=torch.uint8)
    engine = Engine(net, "onnx")
    engine(images(3))
    with torch.no_grad():
        net.backbone.head.bias.add_(1)  # type: ignore[operator]
    engine.calibrate(pictures, 0.7)
    net.decision_shift.fill_(engine.decision_shift)
    assert torch.allclose(engine(images(3)).logits, net(images(3)).logits, atol=1e-4)


@pytest.mark.parametrize("options", [2, 3])
def test_a_network_without_gates_has_full_decisions_everywhere(options: int):
    """Three options and no router: full is option 2 in the graph too."""
    net = lively(create_model("resnet8", "rdi-net", in_channels=1, image_size=8, options=options, target=1.0))
    for executor in ("masked", "onnx"):
        trace = Engine(net, executor)(images(2))
        assert trace.decisions.tolist() == [[options - 1] * 3] * 2 and trace.macs.unique().numel() == 1
