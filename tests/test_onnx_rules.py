"""The onnx executor under rules, early exit and a bound on single images: every output against the eager network."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny import stirred
from torch import Tensor

from spnet import DynamicNetwork, Engine, create_model
from spnet.inference.runtimes.onnx import executor as onnx_executor
from spnet.inference.runtimes.onnx.agreement import clear_samples, difference_under_rules, probe
from spnet.inference.runtimes.onnx.blocked import BLOCKED, blocked
from spnet.inference.runtimes.onnx.executor import OnnxExecutor
from spnet.inference.runtimes.onnx.forcing import force_bias
from spnet.inference.runtimes.onnx.library import open_session
from spnet.inference.runtimes.onnx.network import dynamic_model
from spnet.inference.runtimes.onnx.walk import Rules

METHODS = [
    ("spnet", "", {}),
    ("spnet", "", {"lookahead": 4}),  # decided before somebody leaves
    ("spnet", "", {"evolution_form": "stage"}),  # heads without aligners
    ("spnet", "", {"targets": (1, 1, 0.5, 0.5, 0.5, 1)}),
    ("spnet", "", {"shortcut": "projection", "skip_rule": "plain"}),
    ("static", "spnet", {}),
    ("convnet-aig", "spnet", {}),
    ("skipnet", "spnet", {}),  # an LSTM's state goes along
    ("blockdrop", "spnet", {}),  # all decided at the start
    ("codinet", "spnet", {}),
    ("rdi-net", "spnet", {}),  # three options; the last two decisions go along
    ("rdi-net", "spnet", {"handed_on": "features"}),
]
OTHERS = ((False, False), (False, True), (True, False))
"""Rules beside both at once: (bounded, exits)."""
IDS = [" ".join([method, wrapper, *map(str, config.values())]) for method, wrapper, config in METHODS]


@cache
def network(method: str = "spnet", wrapper: str = "", frozen: tuple = ()) -> DynamicNetwork:
    """A resnet14 whose routers and stage heads disagree about images."""
    net = create_model("resnet14", method, wrapper=wrapper, image_size=8, seed=0, **dict(frozen))
    return stirred(net, net.router, net.stage_heads)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def median_confidence(net: DynamicNetwork, **rules: Any) -> float:
    """About half of the images leave at the first stage."""
    with torch.no_grad():
        return float(net(images(33), **rules).stage_logits[0].softmax(1).amax(1).median()) + 1e-3


@torch.no_grad()
def assert_agrees(run: OnnxExecutor, x: Tensor, **rules: Any) -> Tensor:
    """Returns the stages at which the images left."""
    expected, found = run.net(x, heads=False, **rules), run(x)
    clear = torch.from_numpy(clear_samples(run.net, expected, rules.get("exit_confidence")))
    assert clear.float().mean() > 0.8
    for name in ("decisions", "exit_stage", "macs"):
        assert torch.equal(getattr(found, name)[clear], getattr(expected, name)[clear]), name
    error = (found.logits - expected.logits)[clear].abs().amax(1) / expected.logits[clear].abs().amax(1)
    assert error.numel() == 0 or error.max() <= 1e-4
    assert len(found.router_logits) == len(expected.router_logits)
    for ours, theirs in zip(found.router_logits, expected.router_logits, strict=True):
        torch.testing.assert_close(ours[clear], theirs[clear], atol=1e-3, rtol=1e-4)
    return found.exit_stage


@pytest.mark.parametrize(("method", "wrapper", "config"), METHODS, ids=IDS)
@pytest.mark.parametrize(
    ("bounded", "exits"),
    [(True, True), *(pytest.param(*rules, marks=pytest.mark.slow) for rules in OTHERS)],
)
def test_every_method_agrees_with_the_eager_network(
    method: str, wrapper: str, config: dict, bounded: bool, exits: bool
):
    net = network(method, wrapper, tuple(config.items()))
    rules: dict[str, Any] = {}
    if bounded:
        least = net.macs_of(net.cheapest_path[None], torch.tensor([2]), routed=True, heads=True) / net.static_macs
        rules["max_cost"] = min(1.5, float(least) + 0.3)
    if exits:
        rules["exit_confidence"] = median_confidence(net, **rules)
    run = OnnxExecutor(net, **rules)
    left = [assert_agrees(run, images(count), **rules) for count in (33, 2)]
    left += [assert_agrees(run, images(33)[k : k + 1], **rules) for k in range(4)]
    if exits:
        assert 0 < int((left[0] == 0).sum()) < 33
    if bounded:
        assert (run(images(33)).macs <= rules["max_cost"] * net.static_macs).all()
    forced = net.cheapest_path.expand(5, -1)
    assert torch.equal(run(images(5), forced).decisions, forced)  # to the end, whatever the rules
    assert (run(images(5), forced).exit_stage == 2).all()


@pytest.mark.parametrize(("confidence", "stage"), [(0.0, 0), (1.1, 2)])
def test_everybody_or_nobody_leaves(confidence: float, stage: int):
    rules: dict[str, Any] = {"exit_confidence": confidence}
    for method in ("spnet", "skipnet"):
        run = OnnxExecutor(network(method, "" if method == "spnet" else "spnet"), 2, **rules)
        for count in (1, 2, 40):
            assert set(assert_agrees(run, images(count), **rules).tolist()) == {stage}


def test_what_comes_after_an_exit_is_not_computed():
    """NaN weights in the last stage poison the images that get there, and no other."""
    net = create_model("resnet8", "spnet", image_size=8, seed=0).eval()
    x = images(16)
    with torch.no_grad():
        confidence = float(net(x).stage_logits[0].softmax(1).amax(1).median())
    net.blocks[2].residual2[0].weight.data.fill_(float("nan"))  # type: ignore[attr-defined]
    net.decision_shift.fill_(1e3)  # every block runs
    run = OnnxExecutor(net, exit_confidence=confidence)
    for part in (x, *x.split(1)):
        trace = run(part)
        assert torch.equal(trace.logits.isfinite().all(1), trace.exit_stage < 2)
    assert 0 < int((run(x).exit_stage == 2).sum()) < 16


@pytest.mark.parametrize("rules", [Rules(exits=True), Rules(bounded=True), Rules(exits=True, bounded=True)], ids=str)
@pytest.mark.parametrize("form", ["single", "batch"])
def test_the_blocked_layout_is_kept_across_exits(form: str, rules: Rules):
    plain = dynamic_model(network(), form, for_blocked=True, rules=rules)  # type: ignore[arg-type]
    fast = blocked(plain)
    graphs = [fast.graph]
    for graph in graphs:
        graphs += [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    kinds = [node.op_type for graph in graphs for node in graph.node if node.domain == BLOCKED]
    if "Conv" not in kinds:
        pytest.skip("onnxruntime has no blocked layout on this processor")
    assert "ReorderInput" not in kinds
    assert "ReorderOutput" not in kinds and "GlobalAveragePool" in kinds  # pooled features need none
    open_session(fast.SerializeToString())


def test_a_blocked_graph_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch):
    net, other = network(), network(frozen=(("lookahead", 4),))
    rules: dict[str, Any] = {"exit_confidence": median_confidence(net)}
    monkeypatch.setattr(onnx_executor, "blocked", lambda model: dynamic_model(other, "batch", rules=Rules(exits=True)))
    assert_agrees(OnnxExecutor(net, **rules), images(9), **rules)


@pytest.mark.parametrize("rules", [Rules(), Rules(exits=True)], ids=str)
def test_a_blocked_graph_whose_routers_alone_are_wrong_is_not_used(rules: Rules, monkeypatch: pytest.MonkeyPatch):
    """On forced paths it does everything right."""
    net, other = network(), create_model("resnet14", "spnet", image_size=8, seed=0)
    other.load_state_dict(net.state_dict())
    assert other.router is not None
    for name, parameter in other.router.named_parameters():
        parameter.data.copy_(-parameter.data if ".fc2." in name else parameter.data)  # run and skip change places
    given: dict[str, Any] = {"exit_confidence": 1.0} if rules.exits else {}
    wrong = dynamic_model(other.eval(), "batch", router_logits=True, rules=rules)
    monkeypatch.setattr(onnx_executor, "blocked", lambda model: wrong)
    assert_agrees(OnnxExecutor(net, **given), images(9), **given)


def test_the_referee_sees_another_way_and_other_logits():
    net = network()
    _, decisions = probe(net, paths=2)
    pixels, biases, rules = images(4).numpy(), force_bias(net, decisions), Rules(exits=True, bounded=True)
    session = open_session(dynamic_model(net, "batch", rules=rules).SerializeToString())

    def right(x: np.ndarray, values: dict) -> list[np.ndarray]:
        return session.run(None, {"image": x, **values})

    def scaled(x: np.ndarray, values: dict) -> list[np.ndarray]:
        logits, *rest = right(x, values)
        return [logits * 1.001, *rest]

    def stubborn(x: np.ndarray, values: dict) -> list[np.ndarray]:
        return right(x, {**values, "exit_confidence": np.array(2.0, np.float32)})

    assert difference_under_rules(right, right, pixels, biases, rules) is None
    assert "logits differ" in str(difference_under_rules(right, scaled, pixels, biases, rules))
    assert "other ways" in str(difference_under_rules(right, stubborn, pixels, biases, rules))


def test_the_engine_takes_onnx_under_rules():
    net = network()
    every: list[dict[str, Any]] = [{"exit_confidence": median_confidence(net)}, {"max_cost": 0.7}]
    for rules in every:
        engine = Engine(net, **rules)
        assert engine.choice(1) == engine.choice(64) == "onnx"
        x = images(20)
        gathered = Engine(net, "gathered", **rules)(x)
        clear = torch.from_numpy(clear_samples(net, gathered, rules.get("exit_confidence")))
        assert torch.equal(engine(x).macs[clear], gathered.macs[clear])
    # A static network with stage heads has something to save by leaving early, and nothing without.
    static = network("static", "spnet")
    assert Engine(static).choice(2) == "static" and Engine(static, exit_confidence=0.9).choice(2) == "onnx"


def test_the_static_fallback_does_not_break_the_bound():
    """Above the break-even `auto` takes the static network, but not where a single image must not cost that much."""
    engine = Engine(network(), max_cost=0.7, expected_cost=1.0)
    assert engine.choice(1) == engine.choice(2) == "onnx"
    assert (engine(images(5)).macs <= 0.7 * engine.model.static_macs).all()
