"""Sessions and worker threads that survive what services do: several threads, pickle, copies, fork."""

import os
import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
A = TypeVar("A")

CHUNK = 16
"""Samples a worker takes at a time: features of more no longer stay in its cache, of fewer waste calls."""
CHUNK_BYTES = 5_000_000
"""Bytes of images a worker takes at a time, 8 of 3 x 224 x 224: a large one fills the cache by itself, more at a time
save nothing, and with small chunks workers finish together."""

_ABANDONED: list[Any] = []
"""What a forked child inherited. Its threads did not come along, and onnxruntime would wait for them to end: kept, so
that nothing is ever destroyed."""


def chunk_size(images: np.ndarray, workers: int) -> int:
    """How many of the images (B, C, H, W) a worker takes at a time."""
    return max(1, min(CHUNK, CHUNK_BYTES // images[0].nbytes, -(-len(images) // workers)))


class Sessions:
    """Opened by `open(key)` when first asked for, once for all threads; workers likewise.

    A forked child opens its own, for threads do not survive a fork. Pickle and deepcopy leave them behind.

    Args:
        open: must be picklable if this object is to be.
        workers: threads that share the work of `map`.
    """

    def __init__(self, open: Callable[[Any], Any], workers: int) -> None:
        self.open = open
        self.workers = workers
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._opened: dict[Hashable, Any] = {}
        self._pool: ThreadPoolExecutor | None = None

    def _check_process(self) -> None:
        if self._process != os.getpid():
            _ABANDONED.append((self._opened, self._pool, self._lock))
            self._start()

    def __getitem__(self, key: Hashable) -> Any:
        self._check_process()
        session = self._opened.get(key)
        if session is None:
            with self._lock:
                session = self._opened.get(key)
                if session is None:
                    session = self._opened[key] = self.open(key)
        return session

    def map(self, run: Callable[[A], T], parts: Iterable[A]) -> list[T]:
        """`run` on every part, by the workers where there are several."""
        if self.workers < 2:
            return [run(part) for part in parts]
        self._check_process()
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="spnet-worker")
        return list(self._pool.map(run, parts))

    def __getstate__(self) -> dict[str, Any]:
        return {"open": self.open, "workers": self.workers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()
