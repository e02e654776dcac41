"""Reading ahead: what is needed next is read by threads while the present batch is computed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
AHEAD = 2
"""Batches that are read while the one before is computed."""


def read_ahead(batches: Iterable[Iterable[S]], read: Callable[[S], T], workers: int) -> Iterator[list[T]]:
    """What `read` makes of each batch, in order; the next ones are read meanwhile by `workers` threads.

    No more than `AHEAD` batches are taken from `batches` before they are needed.
    """
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="spnet-photo") as pool:
        waiting: deque[list[Future[T]]] = deque()
        left = iter(batches)
        try:
            while True:
                while len(waiting) <= AHEAD and (batch := next(left, None)) is not None:
                    waiting.append([pool.submit(read, item) for item in batch])
                if not waiting:
                    return
                yield [future.result() for future in waiting.popleft()]
        finally:  # left early: what nobody waits for is not read
            pool.shutdown(wait=False, cancel_futures=True)
