"""How far a list of runs is, and how long the rest will take."""

import time
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from spnet.runs.config import RunConfig


def kind(run: RunConfig) -> str:
    """`spnet resnet20 cifar10`: runs that take about as long as each other."""
    return f"{run.label} {run.backbone} {run.data_name}"


@dataclass
class Board:
    """Runs are named by their hash, kinds of runs by `kind`.

    Attributes:
        running: when each began, by `time.monotonic`.
        failed: why, one line each.
        measured, recorded: seconds of finished trainings, by kind: those of this call, and those of earlier records,
            which another machine may have written.
    """

    planned: list[RunConfig]
    finished: list[str] = field(default_factory=list)
    running: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    measured: dict[str, list[float]] = field(default_factory=dict)
    recorded: dict[str, list[float]] = field(default_factory=dict)

    @cached_property
    def kinds(self) -> dict[str, list[str]]:
        """The runs' names by kind; made once, for a name takes a while."""
        names: dict[str, list[str]] = {}
        for run in self.planned:
            names.setdefault(kind(run), []).append(run.hash)
        return names

    def expected(self, of_kind: str) -> float | None:
        """Seconds a run of this kind will take: the mean of its like, this call's if there are any. Where its like is
        unknown the mean of all; None where nothing is known."""
        for known in (self.measured, self.recorded):
            if of_kind in known:
                return fmean(known[of_kind])
        rest = [value for values in (self.measured or self.recorded).values() for value in values]
        return fmean(rest) if rest else None

    @property
    def seconds_left(self) -> float | None:
        """Until the last run ends; None while nothing is known."""
        now = time.monotonic()
        rest = []
        for of_kind, names in self.kinds.items():
            whole = self.expected(of_kind)
            left = [name for name in names if name not in self.finished and name not in self.failed]
            if left and whole is None:
                return None
            rest += [max(0.0, (whole or 0.0) - (now - self.running.get(name, now))) for name in left]
        return max(sum(rest) / self.workers, max(rest)) if rest else 0.0
