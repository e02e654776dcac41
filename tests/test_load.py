"""`spnet bench --load`: arrivals, the queue and its figures in a time of our own, where a second is what we say; then
the command with real threads and engines, of which no figure is asserted."""

import heapq
import json
import math
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import images, lively

from spnet import Cascade, UserError, create_model
from spnet.bench.bench import BenchConfig
from spnet.bench.isolated import _serve_requests, _Served
from spnet.bench.latency import Timing
from spnet.bench.load import DYNAMIC, LOADS, STATIC, Round, describe, requests, summary, under_load
from spnet.bench.serving import poisson, serve
from spnet.cli import main

QUICK = ["--batches", "none", "--threads", "2", "--rounds", "1", "--seconds", "0.01"]


class OwnTime:
    """A clock for real threads that moves on when all of them sleep, to where the first of them wakes."""

    def __init__(self, workers: int) -> None:
        self.now = 0.0
        self.workers = workers
        self.seen: set[threading.Thread] = set()
        self.asleep: list[tuple[float, int]] = []
        self.changed = threading.Condition()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        me, waited = (self.now + seconds, threading.get_ident()), 0
        with self.changed:
            self.seen.add(threading.current_thread())
            heapq.heappush(self.asleep, me)
            while me in self.asleep:
                gone = sum(not thread.is_alive() for thread in self.seen)  # they found the queue empty
                if len(self.asleep) == self.workers - gone:
                    self.now, _ = heapq.heappop(self.asleep)
                    self.changed.notify_all()
                else:
                    self.changed.wait(0.005)
                    waited += 1
                    assert waited < 10_000, "time stands still: fewer threads sleep than there are workers"


def served(arrivals: Any, service: float, workers: int = 1) -> np.ndarray:
    """Latencies where every request takes `service` seconds."""
    time = OwnTime(workers)
    return serve(lambda k: time.sleep(service), np.array(arrivals, float), workers, clock=time.clock, sleep=time.sleep)


def test_arrivals_are_a_poisson_process_of_their_seed():
    one = poisson(50.0, 20_000, seed=3)
    assert np.array_equal(one, poisson(50.0, 20_000, seed=3)) and not np.array_equal(one, poisson(50.0, 20_000, seed=4))
    gaps = np.diff(one, prepend=0)
    assert (
        (gaps > 0).all()
        and gaps.mean() == pytest.approx(1 / 50, rel=0.03)
        and gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
    )
    np.testing.assert_allclose(poisson(100.0, 20_000, seed=3), one / 2)  # twice as fast, the same process


def test_a_queue_worked():
    assert served([0, 0, 0, 0], 1) == pytest.approx([1, 2, 3, 4])
    assert served([0, 0, 0, 0], 1, workers=2) == pytest.approx([1, 1, 2, 2])
    assert served([1, 2, 2.5, 9], 2) == pytest.approx([2, 3, 4.5, 2])  # done at 3, 5, 7 and 11
    assert served([1, 2, 2.5, 9], 2, workers=2) == pytest.approx([2, 2, 2.5, 2])  # the third waits for the first


def test_latency_is_the_service_where_nobody_waits_and_waiting_as_theory_has_it():
    """Pollaczek and Khinchine: with a service of s and a utilisation of u, the mean waiting is u s / (2 (1 - u))."""
    assert served(poisson(1e-6, 50, seed=0), 2.0) == pytest.approx(2.0)
    latencies = served(poisson(0.25, 4000, seed=0), 2.0)
    assert latencies.mean() - 2 == pytest.approx(0.5 * 2 / (2 * 0.5), rel=0.15)
    assert latencies.min() == pytest.approx(2)


def test_two_workers_halve_the_waiting():
    one, two = (served(np.zeros(200), 1.0, workers).mean() - 1 for workers in (1, 2))
    assert (one, two) == (99.5, 49.5)


def test_requests_are_taken_in_order_and_a_failure_is_told():
    seen: list[int] = []
    serve(seen.append, np.zeros(20), 1)
    assert seen == list(range(20))

    def fails(k: int) -> None:
        if k == 3:
            raise ArithmeticError("the fourth")

    with pytest.raises(ArithmeticError, match="the fourth"):
        serve(fails, np.zeros(20), 2)


def test_a_measurement_has_enough_requests_and_an_end():
    assert requests(100.0, 0.4) == 400  # four seconds
    assert requests(5000.0, 0.4) == 2000
    assert requests(2.0, 0.4) == 30  # not 400, which would take 200 seconds
    assert requests(0.01, 0.4) == 1


def timing(*seconds: float, others: float = 0.0) -> Timing:
    return Timing(seconds, 1.0, others)


def test_a_summary_counts_undisturbed_rounds_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    def one(static: float, others: float = 0.0) -> Round:
        """Both answer four requests: the static network in `static` seconds, the dynamic one in 1."""
        capacity = {STATIC: timing(*[static] * 4), DYNAMIC: timing(0.5, 0.5, 1, 1)}
        loads = {load: {STATIC: timing(static, 2), DYNAMIC: timing(1, 1, others=others)} for load in LOADS}
        return Round(capacity, loads)

    found = summary(2, [one(2), one(4), one(100, others=1)])
    assert (found["rounds"], found["kept"]) == (3, 2)
    assert found["capacity"] == {STATIC: 1.5, DYNAMIC: 4.0, "ratio": 3.0}  # medians of 2 and 1, of 2 and 4
    half, most = found["loads"]
    assert [row["load"] for row in (half, most)] == [0.5, 0.9]
    assert half["arrivals_per_second"] == 0.75 and half["requests"] == 4
    assert half[STATIC]["cpu"] == 1 and half[STATIC]["others"] == 0
    assert half[STATIC]["p50"] == 2000 and half[STATIC]["p99"] == pytest.approx(3940) and half[DYNAMIC]["p99"] == 1000
    assert summary(2, [one(100, others=1)])["kept"] == 0
    told = describe(found).splitlines()
    assert "2 workers" in told[0] and "(3.00x)" in told[0] and "2/3 rounds clean" in told[0]
    assert told[2].split()[:9] == ["50", "%", "0.8", "4", "static", "p50", "2000.00", "p90", "3400.00"]
    assert told[3].split()[:3] == ["dynamic", "p50", "1000.00"] and len(told) == 6


class OfKnownSpeed:
    """In place of a process: a network that takes a known time."""

    took: list[tuple[str, float]]

    def __init__(self, name: str, net: Any, threads: int, batch: int, images: np.ndarray, exit_confidence=None) -> None:
        assert (threads, batch) == (1, 1)
        self.name = name

    def serve(self, arrivals: np.ndarray, workers: int) -> Timing:
        self.took.append((self.name, float(arrivals[-1])))
        service = {"onnx-intra": 2.0, "engine": 1.0}[self.name]
        return timing(*served(arrivals, service, workers).tolist())

    def __enter__(self) -> "OfKnownSpeed":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Calls made of networks that take two seconds (static) and one."""
    OfKnownSpeed.took = []
    monkeypatch.setattr("spnet.bench.load.Isolated", OfKnownSpeed)
    monkeypatch.setattr("spnet.bench.load.LONGEST", 200.0)
    return OfKnownSpeed.took


def test_loads_are_shares_of_the_static_networks_capacity_and_both_get_the_same_requests(known):
    small = create_model("resnet8", "static", in_channels=1, image_size=8, seed=0)
    net = lively(create_model("resnet8", "dynamic", in_channels=1, image_size=8, hidden=4, seed=0))
    for model in (net, Cascade([small, net])):
        known.clear()
        found = under_load(model, images(2).numpy(), 1, rounds=1, seconds=0.1)
        assert found["capacity"] == pytest.approx({STATIC: 0.5, DYNAMIC: 1.0, "ratio": 2.0})
        assert [row["arrivals_per_second"] for row in found["loads"]] == pytest.approx([0.25, 0.45])
        assert [row["requests"] for row in found["loads"]] == [50, 90]  # 200 seconds
        for row in found["loads"]:
            assert row[DYNAMIC]["p50"] < row[STATIC]["p50"] and row[DYNAMIC]["p99"] < row[STATIC]["p99"]
            assert row[DYNAMIC]["p50"] >= 1000 - 1e-6 and row[STATIC]["p50"] >= 2000 - 1e-6
        calls = known[4:]  # behind those that measure capacity
        assert [name for name, _ in calls] == ["onnx-intra", "engine"] * 2
        assert calls[0][1] == calls[1][1] > 0 and calls[2][1] == calls[3][1] > 0


def test_what_cannot_be_served_is_one_line(known, trained: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match="nothing to skip"):
        under_load(create_model("resnet8", "static", in_channels=1, image_size=8), images(2).numpy(), 1)
    with pytest.raises(UserError, match="stage heads"):
        net = create_model("resnet8", "dynamic", in_channels=1, image_size=8)
        under_load(net, images(2).numpy(), 1, exit_confidence=0.9)
    with pytest.raises(UserError, match="at least one rate"):
        BenchConfig(batches=())
    assert not known
    for argv, words in (
        (["resnet8", "--load", *QUICK], "fresh weights have no decisions"),
        ([str(trained), *QUICK], "batches and threads of at least 1"),
        ([str(trained), "--load", *QUICK, "--plain", "--rates", "0.5"], "leave out --rates, --plain"),
    ):
        assert main(["bench", *argv]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


class InThisProcess:
    """Real engines without processes of their own, which take seconds to start."""

    def __init__(self, name: str, net: Any, threads: int, batch: int, images: np.ndarray, exit_confidence: Any) -> None:
        self.served = _Served(name, pickle.dumps(net), threads, batch, images, exit_confidence)

    def serve(self, arrivals: np.ndarray, workers: int) -> Timing:
        return _serve_requests(self.served, arrivals, workers)

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("cascade", [False, True])
def test_the_command(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cascade: bool
):
    """Real threads, real engines, real images."""
    monkeypatch.setattr("spnet.cli.counting.SILENCE", math.inf)  # however busy the machine is
    monkeypatch.setattr("spnet.bench.load.Isolated", InThisProcess)
    network = f"{trained}+{trained}" if cascade else str(trained)
    assert main(["bench", network, "--load", *QUICK, "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert printed.err == ""
    assert (
        result["records"] == [] and json.loads((tmp_path / "out" / "bench.json").read_text())["load"] == result["load"]
    )
    (found,) = result["load"]
    assert found["workers"] == 2 and found["rounds"] == 1 and min(found["capacity"].values()) > 0
    for row, share in zip(found["loads"], LOADS, strict=True):
        assert row["load"] == share and row["requests"] >= 400
        for name in (STATIC, DYNAMIC):
            assert 0 < row[name]["p50"] <= row[name]["p90"] <= row[name]["p99"]
    if cascade:
        return
    assert main(["bench", network, "--load", *QUICK, "--exit-confidence", "0.5", "--budget", "0.9"]) == 0
    told = capsys.readouterr().out
    assert "under load, 2 workers of one thread: static answers" in told and "not measured" not in told
