"""A budget in milliseconds: the search, against a clock that counts multiply-adds. Nothing here is timed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import SHAPE, lively

from spnet import DynamicNetwork, Engine, UserError, create_model
from spnet.bench.latency import Timing
from spnet.bench.profile import Profile, save_profile
from spnet.cli import main
from spnet.data import Split
from spnet.inference.calibrate import mean_cost
from spnet.inference.time_budget import Latency, calibrate_to_time

START, WHOLE = 0.2e-3, 2e-3
"""Seconds of the pretended machine: before the first multiply-add, and for the static network's."""
IMAGES = 50
"""Timed for each threshold, of 200."""


def network(method: str = "spnet") -> DynamicNetwork:
    return lively(create_model("resnet20", method, in_channels=1, image_size=8, seed=0))


def pixels(count: int = 200) -> torch.Tensor:
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """A machine whose time is START and a part of WHOLE for each multiply-add; no profile was measured on it."""
    monkeypatch.setenv("SPNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spnet.inference.time_budget.IMAGES", IMAGES)
    monkeypatch.setattr("spnet.inference.time_budget.PASSES", 2)

    def start(static_macs: int) -> None:
        def time_calls(calls: list, min_seconds: float) -> Timing:
            macs = [float(call().macs.sum()) for call in calls]
            return Timing(tuple(START + WHOLE * m / static_macs for m in macs), cpu=1.0, others=0.0)

        monkeypatch.setattr("spnet.inference.time_budget.time_calls", time_calls)

    return start


@pytest.mark.parametrize(
    ("executor", "budget_ms"), [("branching", 1.2), ("gathered", 0.9), ("gathered", 1.7), ("onnx", 1.2), ("auto", 1.2)]
)
def test_the_time_is_met(executor: str, budget_ms: float, clock):
    net, images = network(), pixels()
    clock(net.static_macs)
    engine = Engine(net, executor)
    cost = engine.calibrate(images, budget_ms=budget_ms)
    late = engine.latency
    assert late is not None and late.milliseconds_per_image == pytest.approx(budget_ms, rel=0.03)
    assert late.p50 <= late.p90 <= late.p99 and (late.n, late.passes, late.clean) == (IMAGES, 2, 2)
    assert late.runs == {"auto": "onnx"}.get(executor, executor) and late.threads == 1
    split = Split(images, torch.zeros(200).long())
    net.decision_shift.fill_(engine.decision_shift)
    assert cost == engine.expected_cost == pytest.approx(mean_cost(net, split))
    assert 1e3 * (START + WHOLE * cost) == pytest.approx(budget_ms, rel=0.05)  # timed on a quarter of the images


@pytest.mark.parametrize(("asked", "way"), [("0%", 0.0), ("50%", 0.5), ("75%", 0.75), ("100%", 1.0)])
def test_a_part_of_the_way_from_the_fastest_to_the_slowest_is_never_out_of_reach(asked: str, way: float, clock):
    net = network()
    clock(net.static_macs)
    low, high = (1e3 * (START + WHOLE * mean_cost_at(net, shift)) for shift in (-64.0, 64.0))
    net.decision_shift.fill_(0)
    engine = Engine(net, "gathered")
    engine.calibrate(pixels(), budget_ms=asked)
    late = engine.latency
    assert late is not None and late.budget_ms == pytest.approx(low + way * (high - low))
    assert late.milliseconds_per_image == pytest.approx(late.budget_ms, rel=0.03)


def test_where_skipping_saves_no_time_every_block_runs(clock, monkeypatch: pytest.MonkeyPatch):
    net = network()
    steady = Timing((1e-3,) * IMAGES, cpu=1.0, others=0.0)
    monkeypatch.setattr("spnet.inference.time_budget.time_calls", lambda calls, seconds: steady)
    engine = Engine(net, "gathered")
    assert engine.calibrate(pixels(), budget_ms="50%") == pytest.approx(mean_cost_at(net, 64.0))
    with pytest.raises(UserError, match="or 0% to 100%; not '120%'"):
        engine.calibrate(pixels(), budget_ms="120%")


def test_the_engines_other_rules_count(clock):
    net = network()
    clock(net.static_macs)
    engine = Engine(net, "gathered", budget=0.9, max_cost=0.6)
    cost = engine.calibrate(pixels(), budget_ms=1.2)  # instead of its own budget
    macs = engine(pixels()).macs.double() / net.static_macs
    assert macs.mean().item() == pytest.approx(cost, rel=1e-3) and macs.max() <= 0.6
    engine.calibrate(pixels(), budget=0.5)
    assert engine.latency is None


@pytest.mark.parametrize("budget_ms", [0.1, 50.0, 0.0, -3.0, float("nan"), float("inf")])
def test_a_refusal_leaves_the_engine_as_it_was(budget_ms: float, clock):
    net = network()
    clock(net.static_macs)
    net.decision_shift.fill_(0.7)
    engine = Engine(net, "gathered", expected_cost=0.8)
    with pytest.raises(UserError) as caught:
        engine.calibrate(pixels(), budget_ms=budget_ms)
    assert float(net.decision_shift) == pytest.approx(0.7) and engine.expected_cost == 0.8 and engine.latency is None
    if budget_ms in (0.1, 50.0):
        low, high = (1e3 * (START + WHOLE * mean_cost_at(net, shift)) for shift in (-64.0, 64.0))
        assert f"this network takes {low:.3g} to {high:.3g} ms an image here" in str(caught.value)
    else:
        assert "a time per image in milliseconds, such as 3.0" in str(caught.value)


def mean_cost_at(net: DynamicNetwork, shift: float) -> float:
    net.decision_shift.fill_(shift)
    return mean_cost(net, Split(pixels(), torch.zeros(200).long()))


def test_an_interrupted_search_leaves_the_threshold_as_it_was(clock, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    net = network()
    monkeypatch.setattr("spnet.inference.time_budget.time_calls", interrupted)
    net.decision_shift.fill_(0.7)
    with pytest.raises(KeyboardInterrupt):
        Engine(net, "gathered").calibrate(pixels(), budget_ms=1.0)
    assert float(net.decision_shift) == pytest.approx(0.7)


def test_auto_says_that_the_static_network_meets_the_time(clock):
    net = network()
    clock(net.static_macs)
    engine = Engine(net)
    assert engine.calibrate(pixels(), budget_ms=1e3 * (START + WHOLE)) == 1.0
    assert engine.latency is not None and engine.latency.runs == "static" == engine.choice(1)
    assert (engine(pixels()[:1]).decisions == 1).all()


def test_auto_stays_below_the_cost_from_which_it_would_not_skip(clock):
    """Between the dearest cost at which `auto` skips and the static network there is a gap: the answer is below it."""
    net = network()
    clock(net.static_macs)
    save_profile(Profile(single=0.5, batch=0.5))
    engine = Engine(net)
    cost = engine.calibrate(pixels(), budget_ms=1.8)  # the static network takes 2.2
    assert engine.choice(1) == "onnx" and engine.latency is not None and engine.latency.runs == "onnx"
    assert 0.4 < cost < 0.5 and engine.latency.milliseconds_per_image < 1.8


@pytest.mark.parametrize(("bend", "goal"), [(0.5, 1.9), (3.0, 0.9)])
def test_the_search_corrects_a_time_that_is_not_linear(bend: float, goal: float):
    net, split = network(), Split(pixels(), torch.zeros(200, dtype=torch.int64))

    def timed(cost: float) -> Latency:
        return Latency(0.5 + 2 * cost**bend, 0, 0, 0, n=1, passes=1, clean=1, threads=1, runs="gathered")

    cost, late = calibrate_to_time(net, split, goal, forward=net, timed=timed)
    assert late.milliseconds_per_image == pytest.approx(goal, rel=0.03) == 0.5 + 2 * cost**bend


def test_requests_that_make_no_sense(clock):
    net = network()
    clock(net.static_macs)
    with pytest.raises(UserError, match="give one of them"):
        Engine(net).calibrate(pixels(), 0.6, budget_ms=1.0)
    with pytest.raises(UserError, match="the masked executor takes the same time whatever is decided"):
        Engine(net, "masked").calibrate(pixels(), budget_ms=1.0)
    with pytest.raises(UserError, match="static network has no decisions"):
        Engine(network("static"), "gathered").calibrate(pixels(), budget_ms=1.0)


def test_eval(trained: Path, clock, capsys: pytest.CaptureFixture[str]):
    clock(600_000)  # near a ResNet-8's on digits
    assert main(["eval", str(trained), "--budget-ms", "1.4", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["milliseconds_per_image"] == pytest.approx(1.4, rel=0.03) and figures["budget_ms"] == 1.4
    assert figures["latency"]["milliseconds_per_image"] == figures["milliseconds_per_image"]
    assert {"p50", "p90", "p99", "n", "threads", "runs"} <= set(figures["latency"])
    assert figures["executor"] == "auto" and figures["cost_ratio"] == pytest.approx(
        figures["calibration_cost"], rel=0.05
    )
    assert main(["eval", str(trained), "--budget-ms", "1.4", "--executor", "gathered"]) == 0
    assert "of 1.4 ms  (batch 1, gathered, n = 50 training images, p50 " in capsys.readouterr().out
    assert main(["eval", str(trained), "--budget-ms", "900"]) == 0
    assert "the static network meets this, nothing is skipped" in capsys.readouterr().out
