"""Tables of runs over seeds: one row a label and budget, with cost, controls, stability and paired differences."""

from collections.abc import Collection, Iterable, Sequence
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

    def of(self, seeds: Collection[int]) -> "Line":
        """This line with the runs of these seeds alone."""
        kept = [i for i, seed in enumerate(self.by_seed) if seed in seeds]
        accuracies = {seed: accuracy for seed, accuracy in self.by_seed.items() if seed in seeds}
        return Line(self.row, accuracies, [self.records[i] for i in kept], [self.figures[i] for i in kept])

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
    "method", "n", "accuracy %", "vs baseline", "shuffled %", "own over shuffled", "fixed path %", "MMACs", "GFLOPs",
    "% of static", "cost in training", "paths", "KL", "flips", "train s",
)  # fmt: skip


def table(rows: list[Row], results: Path, baseline: str | None = None) -> list[list[str]]:
    """Head and one list of cells per row; a row without a finished run has n = 0 and no figures.

    `vs baseline`: mean paired difference in accuracy to the row named `baseline`, with half its 95 % t interval.
    `own over shuffled`: what an image's own path wins over another image's, paired in the same way. `% of static`: of
    the baseline's network in full, so that the ladder's smaller networks can be compared. `fixed path %` says at
    which cost, as a share of static. A last column holds the paper's figures where a row has one.
    """
    lines = collect(rows, results)
    reference = lines[baseline].by_seed if baseline in lines else {}
    full = full_macs(lines, baseline)
    cells: list[list[str]] = [[*HEAD]]
    for name in (row.name for row in rows):
        if name not in lines:
            cells.append([name, "0", *[""] * (len(HEAD) - 2)])
            continue
        line = lines[name]
        difference = paired_difference(line.by_seed, reference) if baseline and name != baseline else None
        macs = line.mean("macs_mean") or 0.0
        static = full or line.figures[0]["macs_static"]
        dynamic = not line.static
        controls = ("accuracy_shuffled_paths", "accuracy_fixed_path")
        shuffled, fixed = (dict(zip(line.by_seed, (f[key] for f in line.figures), strict=True)) for key in controls)
        fixed_cost = line.mean("cost_ratio_fixed_path") or 0.0
        train_macs = line.end("train_macs_mean")
        cells.append(
            [
                name,
                str(len(line.figures)),
                str(summary(list(line.by_seed.values()))),
                str(difference) if difference else "",
                str(summary(list(shuffled.values()))) if dynamic else "",
                str(paired_difference(line.by_seed, shuffled)) if dynamic else "",
                f"{summary(list(fixed.values()))} at {100 * fixed_cost:.0f}" if dynamic else "",
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
        cells[0].append("paper: % (at GFLOPs)")
        for row_cells, row in zip(cells[1:], rows, strict=True):
            row_cells.append(row.paper)
    return cells


def collect(rows: Iterable[Row], results: Path) -> dict[str, Line]:
    """The rows that have a finished run, by name."""
    lines = {row.name: collect_line(row, results) for row in rows}
    return {name: line for name, line in lines.items() if line.figures}


def full_macs(lines: dict[str, Line], baseline: str | None) -> float | None:
    """MACs that are 100 %: of the baseline's network; of the largest there is while the baseline is not trained."""
    if baseline is None:
        return None
    known = [lines[baseline]] if baseline in lines else lines.values()
    return max((line.figures[0]["macs_static"] for line in known), default=None)


def beaten_by_static(rows: Sequence[Row], results: Path) -> list[str]:
    """The dynamic rows that static networks of no more multiply-adds match or beat in mean accuracy over the seeds that
    both have: one sentence for the rows with the same rivals."""
    lines = collect(rows, results)
    beaten: dict[tuple[str, ...], list[str]] = {}
    for name, line in lines.items():
        better = tuple(
            other for other, rival in lines.items() if not line.static and rival.static and _no_worse(rival, line)
        )
        if better:
            beaten.setdefault(better, []).append(name)
    return [
        f"Matched or beaten in mean accuracy by a static network that costs no more ({', '.join(rivals)}): "
        f"{', '.join(names)}."
        for rivals, names in beaten.items()
    ]


def _no_worse(rival: Line, line: Line) -> bool:
    """Whether, over the seeds that both have, `rival` is as accurate for no more multiply-adds."""
    shared = rival.by_seed.keys() & line.by_seed.keys()
    if not shared:
        return False
    (macs, accuracy), (other_macs, other_accuracy) = (
        (part.mean("macs_mean") or 0.0, part.mean("accuracy") or 0.0) for part in (rival.of(shared), line.of(shared))
    )
    return macs <= other_macs and accuracy >= other_accuracy


def made_differently(rows: Sequence[Row], results: Path) -> list[str]:
    """One sentence for each machine and precision, where the rows' runs were not all made on the same. Rows of the same
    runs at several budgets are named once."""
    first: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first.setdefault(tuple(run.hash for run in row.runs), row)
    lines = collect(first.values(), results)
    made: dict[tuple[str, str], list[str]] = {}
    for name, line in lines.items():
        counts: dict[tuple[str, str], int] = {}
        for run_record in line.records:
            how = (run_record["made_with"]["hardware"], run_record["made_with"]["precision"])
            counts[how] = counts.get(how, 0) + 1
        for how, count in counts.items():
            part = name if len(counts) == 1 else f"{name} ({count} of {len(line.records)})"
            made.setdefault(how, []).append(part)
    if len(made) < 2:
        return []
    return [
        f"Made on {hardware} in {precision}: {', '.join(names)}."
        for (hardware, precision), names in sorted(made.items())
    ]


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
