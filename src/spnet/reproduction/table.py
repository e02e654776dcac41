"""Tables of runs over seeds: one row a label and budget, with cost, controls, stability and paired differences."""

from collections.abc import Sequence

from spnet.reproduction.lines import Line
from spnet.reproduction.statistics import paired_difference, summary

Cells = list[list[str]]
"""A head and rows of equal length."""

HEAD = (
    "method", "n", "accuracy %", "vs baseline", "shuffled %", "own over shuffled", "fixed path %", "MMACs", "GFLOPs",
    "% of static", "cost in training", "paths", "KL", "flips", "train s",
)  # fmt: skip


def table(lines: Sequence[Line], baseline: str | None = None) -> Cells:
    """Head and one list of cells per line; one without a finished run has n = 0 and no figures.

    `vs baseline`: mean paired difference in accuracy to the row named `baseline`, with half its 95 % t interval.
    `own over shuffled`: what an image's own path wins over another image's, paired in the same way. `% of static`: of
    the baseline's network in full, so that the ladder's smaller networks can be compared. `fixed path %` says at
    which cost, as a share of static. A last column holds the paper's figures where a row has one.
    """
    reference = next((line.by_seed for line in lines if line.name == baseline), {})
    full = full_macs(lines, baseline)
    cells: Cells = [[*HEAD]]
    for line in lines:
        if not line.figures:
            cells.append([line.name, "0", *[""] * (len(HEAD) - 2)])
            continue
        difference = paired_difference(line.by_seed, reference) if baseline and line.name != baseline else None
        macs = line.mean(lambda f: f.macs_mean) or 0.0
        static = full or line.figures[0].macs_static
        dynamic = not line.static
        by_seed = list(zip(line.by_seed, line.figures, strict=True))
        shuffled = {seed: f.accuracy_shuffled_paths for seed, f in by_seed}
        fixed = {seed: f.accuracy_fixed_path for seed, f in by_seed}
        fixed_cost = line.mean(lambda f: f.cost_ratio_fixed_path) or 0.0
        train_macs = line.end(lambda end: end.train_macs_mean)
        cells.append(
            [
                line.name,
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
                f"{line.mean(lambda f: f.distinct_paths):.0f}" if dynamic else "",
                number(line.mean(lambda f: f.evolution_kl), ".4f"),
                number(line.end(lambda end: end.flips), ".3f"),
                f"{sum(r.train_seconds for r in line.records) / len(line.records):.0f}",
            ]
        )
    if any(line.row.paper for line in lines):
        cells[0].append("paper: % (at GFLOPs)")
        for row_cells, line in zip(cells[1:], lines, strict=True):
            row_cells.append(line.row.paper)
    return cells


def full_macs(lines: Sequence[Line], baseline: str | None) -> float | None:
    """MACs that are 100 %: of the baseline's network; of the largest there is while the baseline is not trained."""
    if baseline is None:
        return None
    trained = [line for line in lines if line.figures]
    known = [line for line in trained if line.name == baseline] or trained
    return max((line.figures[0].macs_static for line in known), default=None)


def number(value: float | None, form: str) -> str:
    """The value in this form; empty where there is none."""
    return "" if value is None else format(value, form)
