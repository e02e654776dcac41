"""Rows of a table and their numbers: runs over seeds, read at one budget from the records of the finished ones."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spnet.jobs.runner import finished, record
from spnet.runs.config import RunConfig


@dataclass(frozen=True)
class Row:
    """One line of a table: runs that differ in their seed alone, read at one budget.

    Attributes:
        figures: where in a record the line's figures stand: `last`, or `budget:0.7`.
        paper: what the paper prints for this line, if anything.
    """

    name: str
    runs: tuple[RunConfig, ...]
    figures: str = "last"
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
    records: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    unmet: int = 0

    @property
    def name(self) -> str:
        return self.row.name

    def mean(self, key: str) -> float | None:
        values = [f[key] for f in self.figures if f.get(key) is not None]
        return sum(values) / len(values) if values else None

    def of(self, seeds: Collection[int]) -> "Line":
        """This line with the runs of these seeds alone."""
        kept = [i for i, seed in enumerate(self.by_seed) if seed in seeds]
        accuracies = {seed: accuracy for seed, accuracy in self.by_seed.items() if seed in seeds}
        return Line(self.row, accuracies, [self.records[i] for i in kept], [self.figures[i] for i in kept])

    @property
    def static(self) -> bool:
        """Whether every block runs for everyone."""
        return not self.row.runs[0].routed

    def end(self, key: str) -> float | None:
        values = [r["end_of_training"][key] for r in self.records if r["end_of_training"].get(key) is not None]
        return sum(values) / len(values) if values else None


def figures_at(run_record: dict[str, Any], where: str) -> dict[str, Any] | None:
    """The figures of a record at `last` or `budget:B`; None if that budget was missed or not asked for."""
    if where == "last":
        return run_record["last"]
    budget = float(where.split(":")[1])
    for found in (*run_record.get("budgets", ()), run_record.get("calibrated", {})):
        if found.get("budget") == budget and "accuracy" in found:
            return found
    return None


def collect(rows: Iterable[Row], results: Path) -> list[Line]:
    """Every row with the figures of its finished runs; each record is read once."""
    rows = list(rows)
    runs = {run.hash: run for row in rows for run in row.runs}
    records = {name: record(run, results) for name, run in runs.items() if finished(run, results)}
    return [_line(row, records) for row in rows]


def _line(row: Row, records: dict[str, dict[str, Any]]) -> Line:
    line = Line(row)
    for run in row.runs:
        if run.hash not in records:
            continue
        figures = figures_at(records[run.hash], row.figures)
        if figures is None:
            line.unmet += 1
            continue
        line.by_seed[run.training.seed] = figures["accuracy"]
        line.records.append(records[run.hash])
        line.figures.append(figures)
    return line
