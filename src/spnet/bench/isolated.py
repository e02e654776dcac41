"""A variant in its own process, commanded over a pipe: two multi-threaded sessions in one process spin against each
other.

Between commands the process waits on the pipe and takes no core, so that rounds of several variants can be interleaved.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from spnet.bench.latency import Timing, time_calls, watched
from spnet.bench.rivals import VARIANTS, build
from spnet.bench.serving import serve
from spnet.errors import UserError, choose
from spnet.inference.cascade import Model


class Isolated:
    """A variant (see `spnet.bench.rivals`) in a process of its own. Use as a context, so that it ends."""

    def __init__(
        self,
        name: str,
        net: Model,
        threads: int,
        batch: int,
        images: np.ndarray,
        exit_confidence: float | None = None,
        int8: bytes | None = None,
    ) -> None:
        self.name = choose("variant", name, VARIANTS)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        order = (name, pickle.dumps(net), threads, batch, images, exit_confidence, int8)
        self._process = context.Process(target=_serve, args=(theirs, order), daemon=True)
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(threads)
        with _uninterrupted():
            self._process.start()
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
        theirs.close()
        try:
            self._answer()
        except BaseException:
            self.__exit__()
            raise

    def time(self, decisions: list[np.ndarray] | None, seconds: float) -> Timing:
        """Time calls on one batch after another for `seconds`; `decisions`: one forced (B, N) a call, None decides
        freely."""
        return self._answer((_time, decisions, seconds))

    def serve(self, arrivals: np.ndarray, workers: int) -> Timing:
        """Answer single images that come at `arrivals` (n,), by so many threads; `seconds` are those from arrival to
        answer."""
        return self._answer((_serve_requests, arrivals, workers))

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits (B, classes) of one batch; of a static variant."""
        return self._answer((_run, images))

    def _answer(self, command: Any = None) -> Any:
        try:
            if command is not None:
                self._pipe.send(command)
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            message = f"the process of variant '{self.name}' was ended from outside, for want of memory perhaps"
            raise UserError(f"{message}: lower --batches, or run bench again.") from error
        if isinstance(answer, Exception):
            raise RuntimeError(f"variant '{self.name}' failed: {answer}") from answer
        return answer

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A process started in here never hears of Ctrl-C, which a terminal sends to all: its parent ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started with the first process, it would lift the mask again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Served:
    """The variant in its process, and the batches that it is timed on."""

    def __init__(self, name: str, pickled: bytes, threads: int, batch: int, images: np.ndarray, *how: Any) -> None:
        net: Model = pickle.loads(pickled)
        self.prepare = build(name, net, threads, batch, *how)
        self.batches = [images[start : start + batch] for start in range(0, len(images) - batch + 1, batch)]
        for _ in range(3):
            self.prepare(self.batches[0], None)()


def _time(served: _Served, decisions: list[np.ndarray] | None, seconds: float) -> Timing:
    batches = served.batches
    forced = [None] * len(batches) if decisions is None else decisions
    calls = [served.prepare(batches[k % len(batches)], force) for k, force in enumerate(forced)]
    calls[0]()
    return time_calls(calls, seconds)


def _serve_requests(served: _Served, arrivals: np.ndarray, workers: int) -> Timing:
    calls = [served.prepare(batch, None) for batch in served.batches]
    return watched(lambda: serve(lambda k: calls[k % len(calls)](), arrivals, workers).tolist())


def _run(served: _Served, images: np.ndarray) -> np.ndarray:
    return np.asarray(served.prepare(images, None)()).copy()


def _serve(pipe: Connection, order: tuple[Any, ...]) -> None:
    try:
        served = _Served(*order)
        pipe.send(order[0])
        while True:
            command, *given = pipe.recv()
            pipe.send(command(served, *given))
    except (EOFError, BrokenPipeError):  # nobody waits for an answer any more
        return
    except Exception as error:
        with contextlib.suppress(BrokenPipeError):
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
