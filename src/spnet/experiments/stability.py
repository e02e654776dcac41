"""Sections G and H of the supplement, measured: how steady decisions and results are, by method and by warm-up."""

from pathlib import Path
from typing import Any

from spnet.experiments.methods import METHODS, at, label
from spnet.experiments.plan import Plan
from spnet.experiments.section import Cells, Section
from spnet.experiments.statistics import summary
from spnet.experiments.table import Line, Row, collect

HEAD = (
    "run", "n", "accuracy %", "spread over seeds", "flips, mean", "flips, last epoch", "path agreement",
    "KL, last epoch", "% of static", "blocks always run", "always skipped", "paths",
)  # fmt: skip


def sections(plan: Plan) -> list[Section]:
    data = plan.scale.datasets[0]
    budget = plan.scale.budgets[0]
    methods = [Row(label(m, w), plan.runs(data, m, w), at(budget)) for m, w in METHODS]
    start = plan.scale.dynamic["static_share"]
    compared: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("convnet-aig", "none", {"static_share": 0.0}),
        ("convnet-aig", "static start", {}),
        ("spnet", "none", {"static_share": 0.0}),
        ("spnet", "static start", {}),
        ("rdi-net", "static start", {"static_share": start, "uniform_share": 0.0}),
        ("rdi-net", "uniform paths", {}),
        ("skipnet", "supervised", {}),
        ("blockdrop", "static start and curriculum", {}),
    )
    warm_ups = [
        Row(f"{method}: {name}", plan.runs(data, method, **settings), at(budget)) for method, name, settings in compared
    ]
    return [
        Section(f"Stability of every method on {data}", methods, cells=_cells, notes=_NOTES),
        Section(f"Stability by warm-up on {data} (supplement G)", warm_ups, cells=_cells, notes=_NOTES),
    ]


_NOTES = (
    "flips: share of decisions on 512 fixed images that changed since the epoch before, after the warm-up; path "
    "agreement: share of decisions equal for two augmentations of an image; KL: between adjoining stages, no "
    "learned part.",
)


def _cells(rows: list[Row], results: Path, baseline: str | None) -> Cells:
    cells = [[*HEAD]]
    for name, line in collect(rows, results).items():
        accuracy = summary(list(line.by_seed.values()))
        flips = [value for record in line.records for value in _after_warm_up(record, "flips")]
        cells.append(
            [
                name,
                str(accuracy.n),
                f"{accuracy.mean:.2f}",
                "" if accuracy.std is None else f"{accuracy.std:.2f}",
                f"{sum(flips) / len(flips):.3f}" if flips else "",
                _form(line.end("flips"), ".3f"),
                _form(line.end("path_agreement"), ".3f"),
                _form(line.end("evolution_kl"), ".4f"),
                f"{100 * (line.mean('cost_ratio') or 0):.1f}",
                _stuck(line, "always_run"),
                _stuck(line, "always_skipped"),
                _form(line.mean("distinct_paths"), ".0f"),
            ]
        )
    return cells


def _after_warm_up(record: dict, name: str) -> list[float]:
    """A curve in the last phase of training, where something was measured."""
    curves = record["curves"]
    last = curves["phase"][-1]
    return [
        v for phase, v in zip(curves["phase"], curves.get(name, ()), strict=False) if phase == last and v is not None
    ]


def _stuck(line: Line, name: str) -> str:
    """Mean number of blocks that are the same for every watched image."""
    counts = [len(record["end_of_training"].get(name) or ()) for record in line.records]
    return f"{sum(counts) / len(counts):.1f}"


def _form(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
