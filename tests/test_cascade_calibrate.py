"""All knobs of a cascade at a budget: worked tables, real members, times that are given."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cascade import LARGE, MIDDLE, SMALL

from spnet import Cascade, Engine, UserError
from spnet.inference.cascade.engine import CascadeEngine
from spnet.inference.cascade.knobs import Ran, priced, tables
from spnet.inference.cascade.plan import OutOfReach, Planner, Setting
from spnet.inference.cascade.time import meet_time
from spnet.inference.time_budget import Latency


def pixels(count: int = 300) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def ran(sure: list[float], worth: list[float] | float, cost: float, shift: float = 0.0) -> Ran:
    count = len(sure)
    costs = np.full(count, cost)
    return Ran(shift, np.array(sure), costs, np.broadcast_to(worth, count).astype(float), costs)


FOUR = [0.2, 0.8, 0.4, 0.6]


def test_a_budget_buys_the_least_sure_images_the_next_member():
    planner = Planner([[ran(FOUR, [0, 1, 0, 1], 1)], [ran(FOUR, 1, 4)]])
    assert (planner.cheapest.cost, planner.dearest.cost) == (1, 5)
    setting = planner.meet(3.0)  # 1 for all, 4 for half of them
    assert setting == Setting((0, 0), (0.5,), 3.0, 1.0)
    assert [reached.tolist() for reached in planner.reaching(setting)] == [[True] * 4, [True, False, True, False]]
    assert planner.meet(1.0).confidences == (0.0,) and planner.meet(5.0).confidences == (1.0,)


def test_the_threshold_that_is_worth_most_is_taken():
    """At a cost of 3 two images get the dear path, or all the cheap one, which is worth more here; then less."""
    first = [ran(FOUR, [0, 1, 0, 0], 1)]
    for cheap, chosen, worth in ((0.9, 0, 0.9), (0.1, 1, 0.75)):
        setting = Planner([first, [ran(FOUR, cheap, 2), ran(FOUR, 1, 4, shift=1.0)]]).meet(3.0)
        assert setting.chosen == (0, chosen) and setting.worth == pytest.approx(worth) and setting.cost == 3


@pytest.mark.parametrize(("gain", "chosen"), [(0.001, 1), (0.2, 0)])
def test_a_member_leaves_its_own_threshold_only_for_a_gain_beyond_chance(gain: float, chosen: int):
    """On every second image the other threshold is worth 0.1 more, on the others 0.1 less; but for the gain."""
    sure = np.linspace(0.1, 0.9, 40).tolist()
    up_and_down = (0.5 + gain + 0.1 * (-1.0) ** np.arange(40)).tolist()
    other, own = ran(sure, up_and_down, 4), replace(ran(sure, 0.5, 4.001, shift=1.0), own=True)
    setting = Planner([[ran(sure, 0, 1)], [other, own]]).meet(3.0)
    assert setting.chosen == (0, chosen) and setting.cost == pytest.approx(3.0, rel=0.02)


def test_of_three_members_each_knob_is_moved_to_its_best_place():
    """The best thresholds stand in different places, so no start has both."""
    sure = np.linspace(0.1, 0.9, 40).tolist()
    first = [ran(sure, 0, 1)]
    second = [ran(sure, 0.1, 2), ran(sure, 0.9, 2.001, shift=1.0)]
    third = [ran(sure, 1.0, 4), ran(sure, 0.2, 4.001, shift=1.0)]
    setting = Planner([first, second, third]).meet(4.0)
    assert setting.chosen == (0, 1, 0) and setting.cost == pytest.approx(4.0, rel=0.02)
    assert setting.worth > 0.6


def test_images_that_are_sure_alike_stay_together():
    table = [[ran([0.5, 0.5, 0.5, 0.9], 0, 1)], [ran(FOUR, 1, 4)]]
    planner = Planner(table)
    assert planner.meet(4.0).cost == 4.0  # three go on
    with pytest.raises(OutOfReach) as missed:
        planner.meet(3.0)
    assert missed.value.nearest == 4.0
    assert "the nearest that confidences give is 4.0" in str(missed.value.told("budget 3", str))
    for beyond in (0.9, 5.2):
        with pytest.raises(OutOfReach) as missed:
            planner.meet(beyond)
        assert (missed.value.low, missed.value.high, missed.value.nearest) == (1, 5, None)


@given(st.integers(2, 4), st.floats(0, 1), st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_a_budget_within_reach_is_met_and_its_setting_costs_what_it_says(members: int, way: float, seed: int):
    draw = np.random.default_rng(seed)
    table = []
    for k in range(members):
        rans = []
        for j in range(draw.integers(1, 4)):
            cost = 2.0**k * (1 + j) * draw.uniform(0.5, 1, 400)
            rans.append(Ran(float(j), draw.random(400), cost, draw.random(400), cost))
        table.append(sorted(rans, key=lambda ran: ran.cost.mean()))
    planner = Planner(table)
    budget = planner.cheapest.cost + way * (planner.dearest.cost - planner.cheapest.cost)
    setting = planner.meet(budget)
    assert setting.cost == pytest.approx(budget, rel=0.02)
    reached = planner.reaching(setting)
    parts = [rans[j].cost * who for rans, j, who in zip(table, setting.chosen, reached, strict=True)]
    assert sum(part.mean() for part in parts) == pytest.approx(setting.cost) == planner.macs(setting)
    assert planner.meet(budget) == setting


@pytest.mark.parametrize("members", [[SMALL, LARGE], [SMALL, MIDDLE, LARGE], [MIDDLE, LARGE]])
@pytest.mark.parametrize("budget", [0.4, 0.9])
def test_calibrating_meets_the_budget(members: list, budget: float):
    engines = [Engine(Cascade(members), executor) for executor in ("gathered", "onnx")]
    knobs = []
    for engine in engines:
        assert isinstance(engine, CascadeEngine)
        cost = engine.calibrate(pixels(), budget)
        assert cost == pytest.approx(budget, rel=0.02)
        spent = engine(pixels()).macs.double().mean() / engine.model.static_macs
        assert float(spent) == pytest.approx(cost, rel=0.005)
        knobs.append((engine.confidences, engine.decision_shifts))
    assert knobs[0] == knobs[1]
    assert engines[0].model.confidences == (0.9,) * (len(members) - 1) and float(LARGE.decision_shift) == 0


def test_a_pending_budget_and_members_of_auto_that_know_what_they_cost():
    engine = Engine(Cascade([SMALL, LARGE]), "onnx", budget=0.7)
    assert engine.calibrate(pixels().numpy()) == pytest.approx(0.7, rel=0.02) == engine.expected_cost
    trace = engine(pixels())
    assert isinstance(engine, CascadeEngine)
    small, large = (member.expected_cost for member in engine.engines)
    assert small == 1.0
    on = trace.exit_stage == 1
    mean = (trace.macs[on] - SMALL.static_macs).double().mean() / LARGE.static_macs
    assert large == pytest.approx(float(mean), rel=0.005)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (0.2, r"budget 0.2 is out of reach: this cascade takes 0.297 of the static cost to 1"),
        (1.5, r"budget 1.5 is out of reach"),
        (0, "budget is a share of the static cost"),
        (-1, "budget is a share of the static cost"),
    ],
)
def test_a_budget_out_of_reach_leaves_the_knobs_alone(budget: float, says: str):
    engine = Engine(Cascade([SMALL, LARGE]), "gathered")
    assert isinstance(engine, CascadeEngine)
    engine.calibrate(pixels(), 0.6)
    before = engine._knobs()
    with pytest.raises(UserError, match=says):
        engine.calibrate(pixels(), budget)
    assert engine._knobs() == before


def test_what_cannot_be_calibrated_is_said():
    engine = Engine(Cascade([SMALL, LARGE]), "masked")
    for call, says in (
        (lambda: engine.calibrate(pixels(0), 0.6), "there are no images to calibrate on"),
        (lambda: engine.calibrate(pixels().float(), 0.6), "calibrate takes images as uint8"),
        (lambda: engine.calibrate(pixels()), "calibrate needs a budget"),
        (lambda: engine.calibrate(pixels(), budget_ms=1), "the masked executor takes the same time"),
        (lambda: Engine(engine.model, exit_confidence=0.5).calibrate(pixels(), 0.6), "give one of them"),
    ):
        with pytest.raises(UserError, match=says):
            call()


def test_answers_are_worth_what_the_last_member_thinks_of_them_on_average():
    runs = [lambda part, shift, net=net: net(part, heads=False, decision_shift=shift) for net in (SMALL, LARGE)]
    with torch.no_grad():
        small, large = tables((SMALL, LARGE), runs, pixels(60))
        probabilities = [LARGE(pixels(60), heads=False, decision_shift=ran.shift).logits.softmax(1) for ran in large]
        answers = SMALL(pixels(60), heads=False).logits.argmax(1)
    assert len(small) == 1 and len(large) > 3
    expected = torch.stack(probabilities).mean(0).gather(1, answers[:, None])[:, 0]
    np.testing.assert_allclose(small[0].worth, expected.numpy(), atol=1e-5)
    costs = [ran.macs.mean() for ran in large]
    assert costs == sorted(costs) and costs[-1] > 1.2 * costs[0]
    assert all(ran.cost is ran.macs for ran in (*small, *large))


# ------------------------------------------------------------------------------------------------- milliseconds, given


def planner() -> Planner:
    sure = np.linspace(0.1, 0.99, 100)
    table = [[ran(sure.tolist(), 0, 10)], [ran(sure.tolist(), 1, 40)]]
    return Planner([[priced(each, float(each.macs.mean()) / 10) for each in rans] for rans in table])


def clock(overhead: float):
    """A machine on which a setting takes its price, and more."""

    def timed(setting: Setting) -> Latency:
        return replace(
            Latency(0, p50=0, p90=0, p99=0, n=1, passes=1, clean=1, threads=1, runs="onnx"),
            milliseconds_per_image=overhead + 1.2 * setting.cost,
        )

    return timed


@pytest.mark.parametrize("goal", [1.8, 2.5, 3.0, 5.0, 6.0])
def test_a_time_is_met_though_prices_are_wrong(goal: float):
    setting, latency = meet_time(planner(), clock(0.3), goal)
    assert latency.milliseconds_per_image == pytest.approx(goal, rel=0.03) and latency.budget_ms == goal
    assert clock(0.3)(setting).milliseconds_per_image == latency.milliseconds_per_image


def test_a_time_in_percent_is_a_way_from_the_fastest_to_the_slowest():
    _, latency = meet_time(planner(), clock(0.3), "50%")
    assert latency.budget_ms == pytest.approx((1.5 + 6.3) / 2)
    assert latency.milliseconds_per_image == pytest.approx(latency.budget_ms, rel=0.03)


@pytest.mark.parametrize(("goal", "says"), [(0.5, "takes 1.5 to 6.3 ms an image here"), (9, "out of reach"),
                                            (0, "is a time per image"), ("x%", "0% to 100%")])  # fmt: skip
def test_a_time_out_of_reach_is_refused(goal, says: str):
    with pytest.raises(UserError, match=says):
        meet_time(planner(), clock(0.3), goal)


def test_a_real_time_is_measured_and_a_failure_restores_the_knobs():
    engine = Engine(Cascade([SMALL, LARGE]), "onnx", threads=1)
    assert isinstance(engine, CascadeEngine)
    cost = engine.calibrate(pixels(40), budget_ms="50%")
    assert 0.29 < cost < 1.4 and engine.latency is not None and engine.latency.runs == "onnx+onnx"
    before = engine._knobs()
    with pytest.raises(UserError, match="out of reach"):
        engine.calibrate(pixels(40), budget_ms=1e-6)
    assert engine._knobs() == before
