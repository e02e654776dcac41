"""A training while it runs, on stderr: a live bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from spnet.runs.record import EpochRow

WIDTH = 79
"""Letters that a line may have: it then fits a terminal of 80 columns."""
SILENCE = 60.0
"""Seconds without a line after which one is printed inside an epoch."""


class Progress(Protocol):
    def report(self, row: "EpochRow") -> None:
        """An epoch is done."""
        ...

    def moved(self, epochs: float) -> None:
        """A step is done; `epochs` are done altogether, such as 3.25."""
        ...

    def note(self, line: str) -> None:
        """Something the user should know."""
        ...

    def close(self) -> None: ...


def progress(epochs: int) -> Progress:
    return Bar(epochs) if sys.stderr.isatty() else Lines(epochs)


class Lines:
    """Where there is no terminal: a line for each epoch, and one a minute inside a long one."""

    def __init__(self, epochs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.epochs = epochs
        self.clock = clock
        self._spoken = clock()
        self._first: tuple[float, float] | None = None
        """When the first step had been done, and where that was."""

    def report(self, row: "EpochRow") -> None:
        self._say(line(row, self.epochs))

    def moved(self, epochs: float) -> None:
        now = self.clock()
        if self._first is None:
            self._first = now, epochs
        since, begun = self._first
        if now - self._spoken < SILENCE or epochs <= begun or epochs == int(epochs):
            return
        from spnet.report.numbers import duration

        left = (self.epochs - epochs) * (now - since) / (epochs - begun)
        self._say(
            f"epoch {int(epochs) + 1:>3}/{self.epochs} {100 * (epochs % 1):.0f} % done, about {duration(left)} left"
        )

    def note(self, line: str) -> None:
        self._say(f"spnet: {line}")

    def close(self) -> None: ...

    def _say(self, words: str) -> None:
        self._spoken = self.clock()
        print(words, file=sys.stderr, flush=True)


class Bar:
    """On a terminal: the epochs' lines, and below them a bar that moves with every step and says the time left."""

    def __init__(self, epochs: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Screen

        columns = (
            TextColumn("{task.completed:.2f}/{task.total} epochs"),
            BarColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.epochs = epochs
        self.screen = Screen(*columns, console=Console(stderr=True), speed_estimate_period=600)
        self.task = self.screen.add_task("training", total=epochs)
        self.screen.start()

    def report(self, row: "EpochRow") -> None:
        self.screen.console.print(line(row, self.epochs), highlight=False, markup=False)

    def moved(self, epochs: float) -> None:
        self.screen.update(self.task, completed=epochs)

    def note(self, line: str) -> None:
        self.screen.console.print(f"spnet: {line}", highlight=False, markup=False)

    def close(self) -> None:
        self.screen.stop()


def line(row: "EpochRow", epochs: int) -> str:
    """An epoch's figures: loss, accuracy in percent (`val`: held-out images, `probe`: training images), cost as a share
    of the static network's, distinct paths; `8 on, 2 off`: blocks that run for every image, and for none."""
    seconds = row.seconds
    words = [
        f"epoch {row.epoch:>3}/{epochs} {row.phase}",
        f"loss {row.loss:.4f}",
        f"{'val' if row.held_out else 'probe'} {row.accuracy:.2f}",
        f"cost {row.cost_ratio:.3f}",
        f"paths {row.distinct_paths}",
        f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s",
    ]
    always, never = len(row.always_run or ()), len(row.always_skipped or ())
    stuck = [f"{always} on, {never} off"] if row.phase != "static" and always + never else []
    forms = ("  ".join([*words, *stuck]), " ".join([*words, *stuck]), "  ".join(words), " ".join(words))
    return next((form for form in forms if len(form) <= WIDTH), forms[-1][:WIDTH])
