"""How far long work is. Whoever does it says so here; nothing is shown unless somebody listens, as the command line
does.

    with listening(print):
        for image in counted(images, "images", len(images)): ...
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class Work:
    """Attributes:
    what: is counted, such as "images".
    total, done: how many there are, and how many are behind.
    """

    what: str
    total: float
    done: float = 0.0


Listener = Callable[[Sequence[Work]], None]
"""Is called with all that is under way, the outermost first, whenever something begins, moves or ends."""


@dataclass
class _Heard:
    tell: Listener
    under_way: list[Work] = field(default_factory=list)

    def moved(self) -> None:
        self.tell(self.under_way)


_heard: ContextVar[_Heard | None] = ContextVar("heard", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Until the block ends, `listener` hears of work done in this thread."""
    token = _heard.set(_Heard(listener))
    try:
        yield
    finally:
        _heard.reset(token)


@contextmanager
def work(what: str, total: float, done: float = 0.0) -> Iterator[Callable[[float], None]]:
    """Until the block ends, so much is under way; yields what to call with how many are done."""
    heard = _heard.get()
    if heard is None:
        yield lambda done: None
        return
    mine = Work(what, total, done)

    def reached(done: float) -> None:
        mine.done = done
        heard.moved()

    heard.under_way.append(mine)
    try:
        heard.moved()
        yield reached
    finally:
        heard.under_way.remove(mine)
        heard.moved()


def counted(items: Iterable[T], what: str, total: float, size: Callable[[T], float] = lambda item: 1) -> Iterator[T]:
    """The items; each counts as `size` says once the next is asked for."""
    done = 0.0
    with work(what, total) as reached:
        for item in items:
            yield item
            done += size(item)
            reached(done)
