"""Tables of runs over seeds: one row a label and budget, with cost, controls, stability and paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spnet.experiments.statistics import paired_difference, summary
from spnet.training.config import RunConfig
from spnet.training.runner import finished, record


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
    """A row with its numbers; `by_seed` are accuracies for paired differences."""

    row: Row
    by_seed: dict[int, float] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)

    def mean(self, key: str) -> float | None:
        values = [f[key] for f in self.figures if f.get(key) is not None]
        return sum(values) / len(values) if values else None

    @property
    def static(self) -> bool:
        """Whether every block runs for everyone."""
        return self.records[0]["label"].split(" + ")[0] == "static"

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


def collect_line(row: Row, results: Path) -> Line:
    """The finished runs of a row; runs without a record are left out and n says so."""
    line = Line(row)
    for run in row.runs:
        if not finished(run, results):
            continue
        run_record = record(run, results)
        figures = figures_at(run_record, row.figures)
        if figures is None:
            continue
        line.by_seed[run.training.seed] = figures["accuracy"]
        line.records.append(run_record)
        line.figures.append(figures)
    return line


HEAD = (
    "method", "n", "accuracy %", "vs baseline", "shuffled %", "fixed path %", "MMACs", "GFLOPs", "% of static",
    "cost in training", "paths", "KL", "flips", "train s",
)  # fmt: skip


def table(rows: list[Row], results: Path, baseline: str | None = None) -> list[list[str]]:
    """Head and one list of cells per row with at least one finished run.

    `vs baseline`: mean paired difference in accuracy to the row named `baseline`, with half its 95 % t interval.
    `% of static`: of the baseline's network in full, so that the ladder's smaller networks can be compared. A last
    column holds the paper's figures where a row has one.
    """
    lines = collect(rows, results)
    reference = lines[baseline].by_seed if baseline in lines else {}
    full = _full_macs(lines, baseline)
    cells: list[list[str]] = [[*HEAD]]
    for name, line in lines.items():
        difference = paired_difference(line.by_seed, reference) if baseline and name != baseline else None
        macs = line.mean("macs_mean") or 0.0
        static = full or line.figures[0]["macs_static"]
        dynamic = not line.static
        controls = ("accuracy_shuffled_paths", "accuracy_fixed_path")
        shuffled, fixed = ([f[key] for f in line.figures] for key in controls)
        train_macs = line.end("train_macs_mean")
        cells.append(
            [
                name,
                str(len(line.figures)),
                str(summary(list(line.by_seed.values()))),
                str(difference) if difference else "",
                str(summary(shuffled)) if dynamic else "",
                str(summary(fixed)) if dynamic else "",
                f"{macs / 1e6:.4g}",
                f"{2e-9 * macs:.4g}",
                f"{100 * macs / static:.1f}",
                f"{100 * train_macs / static:.1f}" if train_macs else "",
                f"{line.mean('distinct_paths'):.0f}" if dynamic else "",
                _number(line.mean("evolution_kl"), ".4f"),
                _number(line.end("flips"), ".3f"),
                f"{sum(r['train_seconds'] for r in line.records) / len(line.records):.0f}",
            ]
        )
    if any(row.paper for row in rows):
        cells[0].append("paper, % at GFLOPs")
        for row_cells, line in zip(cells[1:], lines.values(), strict=True):
            row_cells.append(line.row.paper)
    return cells


def collect(rows: Sequence[Row], results: Path) -> dict[str, Line]:
    """The rows that have a finished run, by name."""
    lines = {row.name: collect_line(row, results) for row in rows}
    return {name: line for name, line in lines.items() if line.figures}


def _full_macs(lines: dict[str, Line], baseline: str | None) -> float | None:
    return lines[baseline].figures[0]["macs_static"] if baseline in lines else None


def beaten_by_static(rows: Sequence[Row], results: Path) -> list[str]:
    """One sentence for every dynamic row that a static network of no more multiply-adds matches or beats in mean
    accuracy."""
    lines = collect(rows, results)
    said = []
    for name, line in lines.items():
        better = [
            other
            for other, rival in lines.items()
            if not line.static
            and rival.static
            and (rival.mean("macs_mean") or 0) <= (line.mean("macs_mean") or 0)
            and (rival.mean("accuracy") or 0) >= (line.mean("accuracy") or 0)
        ]
        if better:
            said.append(f"{name} is matched or beaten by a static network that costs no more: {', '.join(better)}.")
    return said


def missed(rows: Sequence[Row], results: Path) -> list[str]:
    """One sentence for every row with finished runs that no threshold brings to the row's budget."""
    said = []
    for row in rows:
        found = [record(run, results) for run in row.runs if finished(run, results)]
        lacking = sum(figures_at(r, row.figures) is None for r in found)
        if lacking:
            said.append(f"{row.name}: {lacking} of {len(found)} runs cannot be brought to this cost and are left out.")
    return said


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
