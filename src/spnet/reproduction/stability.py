"""Sections G and H of the supplement, measured: how steady decisions and results are, by method and by warm-up."""

from collections.abc import Callable, Collection, Sequence
from math import isfinite
from typing import Any

from spnet.build import create_method
from spnet.reproduction.lines import Line, Row
from spnet.reproduction.methods import METHODS, baseline, caveats, label, ladder
from spnet.reproduction.plan import Plan
from spnet.reproduction.section import Section
from spnet.reproduction.statistics import summary
from spnet.reproduction.table import Cells, full_macs, number
from spnet.runs.config import RunConfig
from spnet.runs.record import Curves, EndOfTraining, RunResult

HEAD = (
    "run", "n", "accuracy %", "spread over seeds", "shuffled %", "fixed path %", "flips, mean", "flips, last epoch",
    "path agreement", "KL, last epoch", "% of static", "blocks always run", "always skipped", "paths",
)  # fmt: skip


def sections(plan: Plan) -> list[Section]:
    data = plan.scale.datasets[0]
    budget = plan.scale.budgets[0]
    methods = [Row(label(m, w), plan.runs(data, m, w), budget) for m, w in METHODS]
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
        Row(f"{method}: {name}", plan.runs(data, method, **settings), budget) for method, name, settings in compared
    ]
    static = ladder(plan, data)
    notes = (*_NOTES, *caveats(method for method, _ in METHODS))
    return [
        Section(f"Stability of every method on {data}", [*static, *methods], baseline(plan), _cells, notes),
        Section(f"Stability by warm-up on {data} (supplement G)", [*static, *warm_ups], baseline(plan), _cells, notes),
    ]


_NOTES = (
    "Accuracy, controls, cost and paths: after calibration. Flips, agreement, KL and stuck blocks: as trained, on 512 "
    "fixed images.",
    "flips: share of decisions that changed since the epoch before; their mean is over all epochs after the warm-up, "
    "without the first of a phase, which is compared with another rule; path agreement: share of decisions equal for "
    "two augmentations of an image; KL: between adjoining stages, no learned part.",
)


def _cells(lines: list[Line], baseline: str | None) -> Cells:
    cells = [[*HEAD]]
    full = full_macs(lines, baseline) or 1.0
    for line in lines:
        if not line.figures:
            continue
        accuracy = summary(list(line.by_seed.values()))
        warm_ups = _warm_ups(line.row.runs[0])
        flips = [value for record in line.records for value in _own_flips(record, warm_ups)]
        cells.append(
            [
                line.name,
                str(accuracy.n),
                f"{accuracy.mean:.2f}",
                "" if accuracy.std is None else f"{accuracy.std:.2f}",
                number(None if line.static else line.mean(lambda f: f.accuracy_shuffled_paths), ".2f"),
                number(None if line.static else line.mean(lambda f: f.accuracy_fixed_path), ".2f"),
                f"{sum(flips) / len(flips):.3f}" if flips else "",
                number(line.end(lambda end: end.flips), ".3f"),
                number(line.end(lambda end: end.path_agreement), ".3f"),
                number(line.end(lambda end: end.evolution_kl), ".4f"),
                f"{100 * (line.mean(lambda f: f.macs_mean) or 0) / full:.1f}",
                _stuck(line, lambda end: end.always_run),
                _stuck(line, lambda end: end.always_skipped),
                number(line.mean(lambda f: f.distinct_paths), ".0f"),
            ]
        )
    return cells


def _warm_ups(run: RunConfig) -> set[str]:
    """The names of the run's phases in which the decisions are not yet the method's own."""
    phases = create_method(run.method, run.wrapper, run.method_settings).phases(run.training.epochs)
    return {phase.name for phase in phases if phase.warmup}


def _own_flips(record: RunResult, warm_ups: Collection[str]) -> list[float]:
    """Flips where they were measured, in phases that are no warm-up and not in the first epoch of one."""
    curves = record.curves or Curves()
    return [
        value
        for before, phase, value in zip(curves.phase, curves.phase[1:], curves.flips[1:], strict=False)
        if before == phase and phase not in warm_ups and isfinite(value)
    ]


def _stuck(line: Line, blocks: Callable[[EndOfTraining], Sequence[int] | None]) -> str:
    """Mean number of blocks that are the same for every watched image."""
    counts = [len(blocks(record.end_of_training) or ()) for record in line.records]
    return f"{sum(counts) / len(counts):.1f}"
