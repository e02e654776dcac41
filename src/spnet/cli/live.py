"""A list of runs while it runs: a live table on a terminal, a line for every change elsewhere. Both on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spnet.jobs.board import Board

HEAD = ("runs", "done", "a run takes", "running for", "failed")


@contextmanager
def live() -> Iterator[Callable[["Board"], None]]:
    """What `run_all` calls to show its board, until the block ends."""
    if not sys.stderr.isatty():
        yield _changes()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False) as screen:
        yield lambda board: screen.update(_table(board), refresh=True)


def _changes() -> Callable[["Board"], None]:
    """Print a line whenever a run starts or ends."""
    last = ""

    def show(board: "Board") -> None:
        nonlocal last
        counts = state(board)
        if counts != last:
            last = counts
            print(f"{time.strftime('%H:%M:%S')} {counts}{time_left(board)}", file=sys.stderr, flush=True)

    return show


def state(board: "Board") -> str:
    return f"{len(board.finished)}/{len(board.planned)} done, {len(board.running)} running, {len(board.failed)} failed"


def time_left(board: "Board") -> str:
    from spnet.report.numbers import duration

    left = board.seconds_left
    return "" if not left else f", about {duration(left)} left"


def rows(board: "Board") -> list[list[str]]:
    """One row for every kind of run, as HEAD names its cells."""
    from spnet.report.numbers import duration

    now = time.monotonic()
    cells = []
    for kind, names in board.kinds.items():
        ages = [duration(now - board.running[name]) for name in names if name in board.running]
        done = sum(name in board.finished for name in names)
        failed = sum(name in board.failed for name in names)
        row = [kind, f"{done}/{len(names)}", duration(board.expected(kind)), ", ".join(ages), str(failed or "")]
        cells.append(row)
    return cells


def _table(board: "Board") -> Any:
    from rich.table import Table

    table = Table(*HEAD, caption=f"{state(board)}{time_left(board)}", caption_justify="left")
    for row in rows(board):
        table.add_row(*row)
    return table
