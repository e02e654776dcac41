"""Rows of a table and their numbers: runs over seeds, read at one budget from the records of the finished ones."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from spnet.jobs.runner import finished, record
from spnet.runs.config import RunConfig
from spnet.runs.record import EndOfTraining, Evaluation, RunResult


@dataclass(frozen=True)
class Row:
    """One line of a table: runs that differ in their seed alone, read at one budget.

    Attributes:
        budget: share of the static cost its figures are at; None: as trained.
        paper: what the paper prints for this line, if anything.
    """

    name: str
    runs: tuple[RunConfig, ...]
    budget: float | None = None
    paper: str = ""


@dataclass
class Line:
    """A row with its numbers: none of them before a run is finished.

    Attributes:
        by_seed: accuracies, for paired differences.
        unmet: finished runs that have no figures at the row's budget.
    """

    row: Row
    by_seed: dict[int, float] = field(default_factory=dict)
    records: list[RunResult] = field(default_factory=list)
    figures: list[Evaluation] = field(default_factory=list)
    unmet: int = 0

    @property
    def name(self) -> str:
        return self.row.name

    def mean(self, figure: Callable[[Evaluation], float]) -> float | None:
        """Mean over the runs that have the figure."""
        return known_mean(map(figure, self.figures))

    def of(self, seeds: Collection[int]) -> "Line":
        """This line with the runs of these seeds alone."""
        kept = [i for i, seed in enumerate(self.by_seed) if seed in seeds]
        accuracies = {seed: accuracy for seed, accuracy in self.by_seed.items() if seed in seeds}
        return Line(self.row, accuracies, [self.records[i] for i in kept], [self.figures[i] for i in kept])

    @property
    def static(self) -> bool:
        """Whether every block runs for everyone."""
        return not self.row.runs[0].routed

    def end(self, figure: Callable[[EndOfTraining], float]) -> float | None:
        """Mean over the runs of what the last epoch logged."""
        return known_mean(figure(record.end_of_training) for record in self.records)


def known_mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    known = [value for value in values if value is not None and isfinite(value)]
    return sum(known) / len(known) if known else None


def figures_at(found: RunResult, where: float | None) -> Evaluation | None:
    """The figures of a record as trained or at a budget; None if that budget was missed or not asked for."""
    if where is None:
        return found.last
    return next((figures for figures in found.asked if figures.budget == where and figures.met), None)


def collect(rows: Iterable[Row], results: Path) -> list[Line]:
    """Every row with the figures of its finished runs; each record is read once."""
    rows = list(rows)
    runs = {run.hash: run for row in rows for run in row.runs}
    records = {name: record(run, results) for name, run in runs.items() if finished(run, results)}
    return [_line(row, records) for row in rows]


def _line(row: Row, records: dict[str, RunResult]) -> Line:
    line = Line(row)
    for run in row.runs:
        if run.hash not in records:
            continue
        figures = figures_at(records[run.hash], row.budget)
        if figures is None:
            line.unmet += 1
            continue
        line.by_seed[run.training.seed] = figures.accuracy
        line.records.append(records[run.hash])
        line.figures.append(figures)
    return line
