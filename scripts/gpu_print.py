"""What `scripts/gpu.py` says while it works, line by line."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spnet.jobs.board import Board
from spnet.reproduction.lines import Row, collect
from spnet.reproduction.scales import Scale
from spnet.reproduction.table import table
from spnet.runs.config import RunConfig


def say(line: str) -> None:
    print(line, flush=True)


def show_measured(measured: Sequence[dict[str, Any]], what: str, epochs: int) -> None:
    """A row a method and way; ratios to the eager static step."""
    base = next(row["ms"] for row in measured if (row["method"], row["way"]) == ("static", "eager"))
    head = ("ms a step", "low", "high", "ratio", "images/s", "GiB", f"h/{epochs} ep.")
    say(f"\n{what:<24}" + "".join(f"{name:>11}" for name in head))
    for row in measured:
        cells = [f"{row[name]:.2f}" for name in ("ms", "low", "high")]
        cells += [f"{row['ms'] / base:.2f}", f"{row['images_per_second']:.0f}"]
        cells += ["-" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}", f"{row['paper_hours']:.2f}"]
        say(f"{row['method'] + ', ' + row['way']:<24}" + "".join(f"{cell:>11}" for cell in cells))


def changes() -> Callable[[Board], None]:
    """A line whenever a run starts or ends."""
    last = ""

    def show(board: Board) -> None:
        nonlocal last
        counts = f"{len(board.finished)}/{len(board.planned)} done, {len(board.running)} running"
        if counts != last:
            last = counts
            say(f"{time.strftime('%H:%M:%S')} {counts}, {len(board.failed)} failed")

    return show


def show_runs(runs: Sequence[RunConfig], states: Sequence[dict[str, Any]], scale: Scale, results: Path) -> None:
    """How far each unfinished run is, and the table of the finished ones."""
    for found in states:
        if not found["finished"]:
            name = f"{found['method']} on {found['data']}, seed {found['seed']}"
            say(f"{name}: {found['epochs']} of {found['planned']} epochs")
    kinds: dict[tuple[str, str], list[RunConfig]] = {}
    for run in runs:
        kinds.setdefault((run.data, run.label), []).append(run)
    rows = []
    for (data, method), these in kinds.items():
        for budget in (None,) if method == "static" else scale.budgets:
            name = f"{data} {method}" if budget is None else f"{data} {method} {budget}"
            rows.append(Row(name, tuple(these), budget))
    for cells in table(collect(rows, results)):
        say(" | ".join(cells))
