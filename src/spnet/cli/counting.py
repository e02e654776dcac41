"""How far long work is, on stderr: bars with the time left on a terminal; elsewhere nothing, or a line a minute where
it takes longer than that."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from spnet.progress import Work

SILENCE = 60.0
"""Seconds after which a line is printed where there is no terminal."""
REDRAWN = 0.1
"""Seconds from one picture of the bars to the next. No thread draws them: it would disturb what is being timed."""


def listener() -> "Bars | Lines":
    return Bars() if sys.stderr.isatty() else Lines()


class Bars:
    """A bar for everything under way, the outermost first; gone when it is done."""

    def __init__(self) -> None:
        self._screen: Any = None
        self._tasks: dict[Work, Any] = {}
        self._drawn = 0.0

    def __call__(self, under_way: Sequence[Work]) -> None:
        if not under_way:
            self._close()
            return
        screen = self._screen = self._screen or _opened()
        for work in [*self._tasks]:
            if work not in under_way:
                screen.remove_task(self._tasks.pop(work))
        for work in under_way:
            if work not in self._tasks:
                self._tasks[work] = screen.add_task(work.what, total=work.total, shown=_shown(work))
            screen.update(self._tasks[work], completed=work.done, shown=_shown(work))
        if time.monotonic() - self._drawn >= REDRAWN:
            screen.refresh()
            self._drawn = time.monotonic()

    def say(self, words: str) -> None:
        """Print a line, above the bars if there are any."""
        if self._screen is None:
            _say(words)
        else:
            self._screen.console.print(words, highlight=False, markup=False)

    def _close(self) -> None:
        if self._screen is not None:
            self._screen.stop()
            self._screen, self._tasks = None, {}


def _opened() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    words = (TextColumn("{task.fields[shown]}", markup=False), BarColumn(), TextColumn("left"), TimeRemainingColumn())
    console = Console(stderr=True)
    screen = Progress(*words, console=console, speed_estimate_period=600, auto_refresh=False, transient=True)
    screen.start()
    return screen


class Lines:
    """A line about the outermost work after a minute without one, and one at its start if part of it was done before.

    The time left is that of what was done since the first step, which is slower than the others.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._work: Work | None = None
        self._first: tuple[float, float] | None = None
        """When the first step had been done, and how many were done then."""
        self._spoken = 0.0

    def __call__(self, under_way: Sequence[Work]) -> None:
        work = under_way[0] if under_way else None
        if work is None or work is not self._work:
            self._work, self._first, self._spoken = work, None, self.clock()
            if work is not None and work.done:
                self.say(f"{_shown(work)} are done already")
            return
        now = self.clock()
        if self._first is None and work.done:
            self._first = now, work.done
        elif self._first is not None and now - self._spoken >= SILENCE and self._first[1] < work.done < work.total:
            from spnet.report.numbers import duration

            left = (work.total - work.done) * (now - self._first[0]) / (work.done - self._first[1])
            self.say(f"{_shown(work)}, about {duration(left)} left")

    def say(self, words: str) -> None:
        self._spoken = self.clock()
        _say(words)


def _shown(work: Work) -> str:
    """`3.25/20 epochs`."""
    return f"{_number(work.done)}/{_number(work.total)} {work.what}"


def _number(count: float) -> str:
    """Whole where it is; epochs are not."""
    return f"{count:,.0f}" if count == int(count) else f"{count:,.2f}"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
