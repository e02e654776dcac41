"""Figure 2: how much features change between adjoining stages (KL), epoch by epoch, with and without SP-Net's evolution
loss; mean and band over seeds."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from spnet.jobs.runner import finished, record
from spnet.report.figures import theme
from spnet.reproduction.plan import Plan
from spnet.runs.config import RunConfig
from spnet.runs.record import Curves, RunResult

LINES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("dynamic", {}, "dynamic baseline"),
    ("spnet", {"evolution": 0.0}, "SP-Net without evolution loss"),
    ("spnet", {}, "SP-Net"),
    ("spnet", {"evolution": 0.1}, "SP-Net, evolution weight 0.1"),
)
"""Method, changes and name of each line."""


def runs(plan: Plan) -> list[RunConfig]:
    data = plan.scale.datasets[0]
    return [run for method, changes, _ in LINES for run in plan.runs(data, method, **changes)]


def networks(plan: Plan) -> list[RunConfig]:
    return []


@theme.styled()
def write(plan: Plan, results: Path, folder: Path, out: Path) -> list[Path]:
    from matplotlib.figure import Figure

    data = plan.scale.datasets[0]
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    begin = None
    for style, (method, changes, name) in enumerate(LINES):
        records = [record(run, results) for run in plan.runs(data, method, **changes) if finished(run, results)]
        if not records:
            continue
        epochs, mean, low, high = band([r.curves.evolution_kl for r in records if r.curves])
        hue, label = theme.colour(style), f"{name}, n = {len(records)}"
        axes.plot(epochs, mean, color=hue, linestyle=theme.dash(style), label=label)
        if len(records) > 1:
            axes.fill_between(epochs, low, high, color=hue, alpha=0.15, linewidth=0)
        begin = slow_progress_begins(records[0])
    if begin is not None:
        axes.axvline(begin, color=theme.INKS["soft"], linewidth=0.8)
        axes.text(begin, 0.02, " routers start", transform=axes.get_xaxis_transform(), color=theme.INKS["soft"])
    axes.set_xlabel("epoch")
    axes.set_ylabel("KL between adjoining stages, nats")
    axes.set_title(f"{data}, {plan.scale.backbone}, scale {plan.scale.name}; band: one standard deviation")
    axes.legend()
    return theme.save(out / "figure2", figure)


def band(curves: Sequence[Sequence[float]]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Epochs from 1, mean, and mean -+ one sample standard deviation, over the epochs that every curve has."""
    from statistics import fmean, stdev

    columns = [
        (epoch, values) for epoch, values in enumerate(zip(*curves, strict=False), 1) if all(map(isfinite, values))
    ]
    epochs = [epoch for epoch, _ in columns]
    means = [fmean(values) for _, values in columns]
    spreads = [stdev(values) if len(values) > 1 else 0.0 for _, values in columns]
    low = [m - s for m, s in zip(means, spreads, strict=True)]
    return epochs, means, low, [m + s for m, s in zip(means, spreads, strict=True)]


def slow_progress_begins(run_record: RunResult) -> float:
    """The boundary, in epochs, between the first phase and the rest; 0.5 where there is but one."""
    phases = (run_record.curves or Curves()).phase
    return next((i + 0.5 for i, phase in enumerate(phases) if phase != phases[0]), 0.5)
