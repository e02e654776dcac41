"""Runs that differ in nothing but their seed belong together; every group gets a name that tells it from the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spnet.report.numbers import mean_and_deviation
from spnet.report.run import Run, Series

NAMED = 3
"""A name spells out at most this many settings that differ; beyond that it shows the hash."""


@dataclass(frozen=True)
class Group:
    """style: number of its colour, dashes and shape, the same in every chart."""

    name: str
    runs: list[Run]
    style: int

    @property
    def static(self) -> bool:
        """A rung of the static ladder: every block runs."""
        return not self.runs[0].config.routed

    def summary(self, value: Callable[[Run], float | None]) -> tuple[float, float | None] | None:
        """Mean and standard deviation (None for one run) of a figure over the runs that have it."""
        known = [v for v in map(value, self.runs) if v is not None]
        return mean_and_deviation(known) if known else None

    def count(self, value: Callable[[Run], float | None]) -> int:
        """Runs that have the figure."""
        return sum(value(run) is not None for run in self.runs)

    def curve(self, series: Callable[[Run], Series]) -> tuple[Series, tuple[Series, Series] | None]:
        """Mean over the runs at each epoch, and one standard deviation around it where two runs got that far."""
        columns = [dict(zip(run.epochs, series(run), strict=True)) for run in self.runs]
        middle: Series = []
        lower: Series = []
        upper: Series = []
        for epoch in range(1, last_epoch(self.runs) + 1):
            known = [v for column in columns if (v := column.get(epoch)) is not None]
            mean, deviation = mean_and_deviation(known) if known else (None, None)
            middle.append(mean)
            lower.append(None if mean is None or deviation is None else mean - deviation)
            upper.append(None if mean is None or deviation is None else mean + deviation)
        return middle, ((lower, upper) if any(v is not None for v in lower) else None)


def last_epoch(runs: Sequence[Run]) -> int:
    return int(max((epoch for run in runs for epoch in run.epochs), default=0))


def group(runs: Sequence[Run]) -> list[Group]:
    """Groups in order of their first run."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(run.config.with_settings(seed=0).hash, []).append(run)
    members = list(together.values())
    return [Group(name, found, style) for style, (name, found) in enumerate(zip(_names(members), members, strict=True))]


def _names(members: Sequence[list[Run]]) -> list[str]:
    """The label; backbone and data where they vary at all; settings that vary where all these are equal."""
    first = [found[0] for found in members]
    names = []
    for run in first:
        parts = [run.label]
        parts += [run.config.backbone] if len({other.config.backbone for other in first}) > 1 else []
        parts += [run.data] if len({other.data for other in first}) > 1 else []
        kin = (run.label, run.config.backbone, run.data)
        rivals = [_settings(r) for r in first if (r.label, r.config.backbone, r.data) == kin]
        own = _settings(run)
        varying = [key for key in own if len({str(rival.get(key)) for rival in rivals}) > 1]
        if len(varying) <= NAMED:
            parts += [f"{key} {own[key]}" for key in varying]
        else:
            parts.append(run.config.hash[:6])
        names.append(" ".join(parts))
    return names


def _settings(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.config.resolved().items() if key != "seed"}
