"""How far a long list is, on stderr: a bar on a terminal, a line a minute elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spnet.cli.progress import SILENCE


@contextmanager
def counting(what: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[int, int], None]]:
    """What to call with (done, total) until the block ends; `what` is counted, such as photos."""
    if not sys.stderr.isatty():
        yield _lines(what, clock)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (MofNCompleteColumn(), TextColumn(what), BarColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as screen:
        task = screen.add_task(what, total=None)
        yield lambda done, total: screen.update(task, completed=done, total=total)


def _lines(what: str, clock: Callable[[], float]) -> Callable[[int, int], None]:
    """A line when a list begins where an earlier call left it, and one a minute."""
    begun: tuple[float, int] | None = None
    spoken = clock()

    def show(done: int, total: int) -> None:
        nonlocal begun, spoken
        now = clock()
        if begun is None:
            begun = now, done
            if done:
                print(f"{done}/{total} {what} are done already", file=sys.stderr, flush=True)
        elif now - spoken >= SILENCE and done > begun[1]:
            from spnet.report.numbers import duration

            spoken = now
            left = (total - done) * (now - begun[0]) / (done - begun[1])
            print(f"{done}/{total} {what}, about {duration(left)} left", file=sys.stderr, flush=True)

    return show
