"""The dynamic network: what a trace holds, forced paths, counted multiply-adds, the test rule."""

import copy
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SHAPE, agreeing, empty_path, full_path, images, lively, paths, routed_alike
from torch import Tensor

import spnet
from spnet import DynamicNetwork, Trace, UserError, create_model
from spnet.methods import shipped_methods
from spnet.network.dynamic import Noise
from spnet.network.sampling import AllRun, GumbelStraightThrough, Uniform


def network(method: str = "spnet", seed: int = 0, **settings) -> DynamicNetwork:
    return lively(create_model("resnet8", method, in_channels=1, image_size=8, seed=seed, **settings), seed)


def test_the_public_door():
    assert set(spnet.__all__) <= set(dir(spnet))
    for name in spnet.__all__:
        assert getattr(spnet, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        spnet.nothing  # noqa: B018


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_shapes_of_a_trace(batch: int):
    net = network()
    trace = net(images(batch))
    assert trace.logits.shape == (batch, 10) and trace.logits is trace.stage_logits[-1]
    assert [z.shape for z in trace.stage_logits] == [(batch, 10)] * 3
    assert [f.shape[1] for f in trace.block_features] == [16, 32, 64]
    assert all(torch.equal(a, b) for a, b in zip(trace.stage_features, trace.block_features, strict=True))
    assert [z.shape for z in trace.router_logits] == [g.shape for g in trace.gates] == [(batch, 2)] * 3
    assert trace.decisions.shape == trace.log_prob.shape == (batch, 3)
    assert trace.macs.shape == trace.exit_stage.shape == (batch,)
    assert (trace.exit_stage == 2).all()
    held = [getattr(trace, field.name) for field in fields(Trace)]
    assert all(isinstance(v, Tensor) or all(isinstance(t, Tensor) for t in v) for v in held)


def test_stages_of_several_blocks():
    net = lively(create_model("resnet20", "spnet", in_channels=1, image_size=8))
    trace = net(images(2))
    assert len(trace.block_features) == 9
    assert all(trace.stage_features[s] is trace.block_features[i] for s, i in enumerate((2, 5, 8)))


def test_a_static_network_decides_nothing():
    net = network("static")
    trace = net(images(2))
    assert trace.router_logits == trace.gates == () and trace.log_prob.shape == (2, 0)
    assert trace.decisions.tolist() == [[1, 1, 1]] * 2
    assert trace.macs.tolist() == [net.static_macs] * 2


@pytest.mark.parametrize("method", ["spnet", "convnet-aig", "dynamic"])
def test_open_all_equals_the_static_network(method: str):
    net, static = network(method), create_model("resnet8", "static", in_channels=1, image_size=8).eval()
    missing = static.load_state_dict(net.state_dict(), strict=False).missing_keys
    assert not missing
    x = images(4)
    assert torch.equal(net.forward_path(x, full_path(net)).logits, static(x).logits)


def test_all_closed_is_stem_and_shortcuts():
    net, x = network("convnet-aig"), images(4)
    trace = net.forward_path(x, empty_path(net))
    features = net.backbone.stem(x)
    for width in (16, 32):  # stride-2 subsample, zero channels
        features = torch.cat([features[:, :, ::2, ::2], torch.zeros(4, width, *features[:, 0, ::2, ::2].shape[1:])], 1)
    assert torch.allclose(trace.logits, net.backbone.head(features.mean((2, 3))), atol=1e-6)
    assert net.router is not None
    assert trace.macs.tolist() == [net.backbone.stem_macs + net.backbone.head_macs + sum(net.router.macs)] * 4


def test_each_skip_lowers_the_cost_by_just_that_block():
    net = create_model("resnet110", "convnet-aig")
    path, exits = full_path(net), torch.full((1,), 2)

    def cost(path: Tensor, routed: bool) -> int:
        return int(net.macs_of(path[None], exits, routed=routed, heads=True))

    assert cost(path, False) == net.static_macs == 252_887_680
    assert cost(path, True) == 252_887_680 + 33_216
    for i in (0, 1, 17, 19, 53):
        skipped = path.clone()
        skipped[i] = 0
        assert cost(path, True) - cost(skipped, True) == 4_718_592
    skipped = path.clone()
    skipped[18] = 0
    assert cost(path, True) - cost(skipped, True) == 3_538_944


def test_forced_paths_still_score_and_are_remembered():
    net, x = network(), images(3)
    free, decisions = net(x), paths(net, 3)
    trace = net.forward_path(x, decisions)
    assert torch.equal(trace.decisions, decisions)
    assert torch.equal(trace.router_logits[0], free.router_logits[0])
    assert torch.equal(net.forward_path(x, free.decisions).logits, free.logits)
    assert torch.equal(net.forward_path(x, decisions[0]).decisions, decisions[:1].expand(3, -1))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), batch=st.integers(1, 7))
def test_costs_add_up_for_any_path(seed: int, batch: int):
    net, decisions = network(), paths(network(), batch, seed)
    trace = net.forward_path(images(batch), decisions)
    assert net.router is not None and net.stage_heads is not None
    always = net.backbone.stem_macs + net.backbone.head_macs + sum(net.router.macs) + sum(net.stage_heads.macs)
    for path, macs in zip(decisions.tolist(), trace.macs.tolist(), strict=True):
        assert macs == always + sum(block.macs[k] for block, k in zip(net.blocks, path, strict=True))


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        (torch.zeros(3, 2).long(), "(3, 3)"),
        (torch.zeros(2, 3).long(), "(3, 3)"),
        (torch.tensor([0, 2, 0]), "block 1 takes options 0 to 1"),
        (torch.tensor([-1, 0, 0]), "block 0 takes options 0 to 1"),
    ],
)
def test_decisions_that_are_no_path(decisions: Tensor, message: str):
    with pytest.raises(UserError) as caught:
        network().forward_path(images(3), decisions)
    assert message in str(caught.value)


def test_an_ungated_block_has_no_router_and_always_runs():
    net = network("convnet-aig", targets=(0.5, 1.0, 0.5))
    assert net.gated == (True, False, True) and net.gated_indices == (0, 2)
    assert net.cheapest_path.tolist() == [0, 1, 0]
    trace = net(images(6))
    assert (trace.decisions[:, 1] == 1).all()
    assert len(trace.gates) == len(trace.router_logits) == 2 and trace.log_prob.shape == (6, 2)
    with pytest.raises(UserError, match="block 1 takes options 1 to 1"):
        net.forward_path(images(1), torch.tensor([1, 0, 1]))


def test_the_test_rule_is_deterministic_and_alone_equals_in_a_batch():
    net, x = network(), images(33)
    first, again = net(x), net(x)
    assert torch.equal(first.logits, again.logits) and torch.equal(first.decisions, again.decisions)
    assert len(first.decisions.unique(dim=0)) > 1  # the images really take different paths
    sure = routed_alike(net, first.router_logits).all(1)
    assert sure.sum() > 25
    for b in sure.nonzero().flatten().tolist()[:12]:
        alone = net(x[b : b + 1])
        assert torch.equal(alone.decisions[0], first.decisions[b])
        assert torch.equal(alone.macs[0], first.macs[b])
        assert agreeing(alone.logits[0], first.logits[b], 1e-5)


def test_decisions_are_the_largest_logit():
    trace = network()(images(20))
    assert torch.equal(trace.decisions, torch.stack([z.argmax(1) for z in trace.router_logits], 1))


def test_train_mode_draws_only_from_the_given_streams():
    net, x = network().train(), images(64)

    def run(gates: int, dropout: int) -> Trace:
        noise = Noise(torch.Generator().manual_seed(gates), torch.Generator().manual_seed(dropout))
        return copy.deepcopy(net)(x, sampler=GumbelStraightThrough(), noise=noise)

    before = torch.random.get_rng_state()
    one, same, other_gates, other_dropout = run(1, 1), run(1, 1), run(2, 1), run(1, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.logits, same.logits)
    assert not torch.equal(one.gates[0], other_gates.gates[0])
    assert torch.equal(one.router_logits[0], other_gates.router_logits[0])
    assert not torch.equal(one.router_logits[0], other_dropout.router_logits[0])


def test_samplers_that_need_no_router_cost_no_router():
    net, x = network(), images(4)
    trace = net(x, sampler=AllRun(), heads=False)
    assert trace.router_logits == () and trace.macs.tolist() == [net.static_macs] * 4
    assert net(x, sampler=Uniform(), heads=False).router_logits == ()


def test_bytes_are_normalised_by_the_networks_own_statistics():
    net = network()
    net.mean.fill_(0.25)
    net.std.fill_(0.5)
    pixels = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)
    assert torch.allclose(net(pixels).logits, net((pixels / 255 - 0.25) / 0.5).logits, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 3, 8, 8),
        torch.zeros(2, 1, 9, 8),
        torch.zeros(1, 8, 8),
        torch.zeros(2, 1, 8, 8, dtype=torch.int64),
        torch.zeros(2, 1, 8, 8, dtype=torch.bool),
    ],
    ids=lambda wrong: f"{tuple(wrong.shape)}-{wrong.dtype}",
)
def test_images_the_network_does_not_take(wrong: Tensor):
    with pytest.raises(UserError):
        network()(wrong)


def test_the_calibrated_shift_moves_only_the_test_rule():
    net, x = network(), images(16)
    plain = net(x)
    margin = torch.stack([z[:, 1] - z[:, 0] for z in plain.router_logits], 1)
    noise = [Noise(torch.Generator().manual_seed(0)) for _ in range(2)]
    drawn = net(x, sampler=GumbelStraightThrough(), noise=noise[0])
    net.decision_shift.fill_(0.3)
    shifted = net(x)
    assert torch.equal(shifted.router_logits[0], plain.router_logits[0])  # traces hold raw logits
    assert torch.equal(shifted.decisions[:, 0], (margin[:, 0] + 0.3 > 0).long())
    assert torch.equal(net(x, sampler=GumbelStraightThrough(), noise=noise[1]).decisions, drawn.decisions)
    net.decision_shift.fill_(64.0)
    assert (net(x).decisions == 1).all()
    net.decision_shift.fill_(-64.0)
    assert (net(x).decisions == 0).all()


def test_every_gate_lets_a_gradient_reach_its_router():
    net = network().train()
    trace = net(images(8), sampler=GumbelStraightThrough(), noise=Noise(torch.Generator().manual_seed(0)))
    trace.logits.square().sum().backward()
    assert net.router is not None
    for name, parameter in net.router.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert float(net.router.mlps["0"].fc2.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_copies_share_nothing():
    net = network()
    twin = copy.deepcopy(net)
    assert twin.blocks[0] is twin.backbone.blocks[0] and twin.blocks[0] is not net.blocks[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet8", "spnett"), "Did you mean 'spnet'?"),
        (("resnet9", "spnet"), "unknown backbone 'resnet9'. Known: resnet8,"),
    ],
)
def test_unknown_names(arguments: tuple[str, str], message: str):
    with pytest.raises(UserError) as caught:
        create_model(*arguments)
    assert message in str(caught.value)


def test_unknown_settings_name_the_nearest():
    with pytest.raises(UserError, match=r"unknown setting 'taget'\. Did you mean 'target'"):
        create_model("resnet8", "dynamic", taget=0.5)


def test_a_seed_gives_every_method_the_same_backbone():
    """Also where a method's rule adds layers of its own (CoDiNet, SkipNet)."""
    names = shipped_methods()
    states = {name: create_model("resnet8", name, seed=3).backbone.state_dict() for name in names}
    assert min(len(states["codinet"]), len(states["skipnet"])) > len(states["static"])
    for name, state in states.items():
        assert all(torch.equal(state[key], value) for key, value in states["static"].items()), name
    other = create_model("resnet8", "static", seed=4).backbone.state_dict()
    assert not torch.equal(other["head.weight"], states["static"]["head.weight"])


def test_probabilities_are_those_of_the_raw_logits():
    trace = lively(create_model("resnet8", "dynamic", in_channels=1, image_size=8, seed=0))(images(3))
    assert len(trace.probabilities) == 3
    for logits, probability in zip(trace.router_logits, trace.probabilities, strict=True):
        assert torch.allclose(probability.sum(1), torch.ones(3)) and probability.argmax(1).equal(logits.argmax(1))
