"""Timing that says how far to trust it: quantiles, and what else the machine was doing meanwhile."""

import os
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

TICK = os.sysconf("SC_CLK_TCK")
SLACK = 0.15
"""Cores that others may take beyond the idle ones before a measurement counts as contended."""


@dataclass(frozen=True)
class Timing:
    """Calls timed one after another.

    Attributes:
        seconds: of each call.
        cpu: cores this process kept busy.
        others: cores everything else kept busy, time stolen by the host included; NaN where the system does not say.
    """

    seconds: tuple[float, ...]
    cpu: float
    others: float

    def contended(self, threads: int) -> bool:
        """Others took cores that `threads` threads needed."""
        return self.others > max(0, (os.cpu_count() or 1) - threads) + SLACK

    @property
    def cpu_seconds(self) -> float:
        """Processor time per call: steadier than the clock where others take the cores."""
        return self.cpu * self.mean

    @property
    def mean(self) -> float:
        return sum(self.seconds) / len(self.seconds)


def time_calls(calls: Sequence[Callable[[], object]], min_seconds: float) -> Timing:
    """Time the calls in turn, over and over until `min_seconds` have passed and each has run."""

    def over_and_over() -> list[float]:
        seconds, start = [], time.perf_counter()
        while True:
            for call in calls:
                before = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - before)
            if time.perf_counter() - start >= min_seconds:
                return seconds

    return watched(over_and_over)


def watched(run: Callable[[], Iterable[float]]) -> Timing:
    """The seconds that `run` returns, and what it and everything else kept busy meanwhile."""
    busy, own, start = busy_seconds(), _own_seconds(), time.perf_counter()
    seconds = tuple(run())
    wall = time.perf_counter() - start
    own = _own_seconds() - own
    return Timing(seconds, own / wall, max(0.0, busy_seconds() - busy - own) / wall)


def in_turn(calls: Sequence[Sequence[Callable[[], object]]]) -> list[list[float]]:
    """Milliseconds of every call of several contenders, which have equally many: the first of each, then the second.
    Each is called once before it is timed: its weights are in the cache, as of a network that is used."""
    taken: list[list[float]] = [[] for _ in calls]
    for together in zip(*calls, strict=True):
        for mine, call in zip(taken, together, strict=True):
            call()
            start = time.perf_counter()
            call()
            mine.append(1e3 * (time.perf_counter() - start))
    return taken


def busy_seconds() -> float:
    """Seconds all cores together have been busy or stolen since boot; NaN where there is no /proc/stat."""
    file = Path("/proc/stat")
    if not file.is_file():
        return float("nan")
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, file.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def _own_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and the quartiles of some values."""
    if len(values) < 2:
        return {"median": values[0], "q25": values[0], "q75": values[0]}
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return {"median": middle, "q25": low, "q75": high}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 of some values."""
    if len(values) < 2:
        return dict.fromkeys(("p50", "p90", "p99"), values[0])
    cuts = quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98]}
