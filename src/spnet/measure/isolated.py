"""A variant in its own process, commanded over a pipe: two multi-threaded sessions in one process spin against each
other.

Between commands the process waits on the pipe and takes no core, so that rounds of several variants can be interleaved.
"""

import multiprocessing
import os
import pickle
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from spnet.dynamic import DynamicNetwork
from spnet.errors import choose
from spnet.measure.latency import Timing, time_calls
from spnet.measure.rivals import VARIANTS, build


class Isolated:
    """A variant (see `spnet.measure.rivals`) in a process of its own. Use as a context, so that it ends."""

    def __init__(
        self,
        name: str,
        net: DynamicNetwork,
        threads: int,
        batch: int,
        images: np.ndarray,
        exit_confidence: float | None = None,
    ) -> None:
        self.name = choose("variant", name, VARIANTS)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        order = (name, pickle.dumps(net), threads, batch, images, exit_confidence)
        self._process = context.Process(target=_serve, args=(theirs, order), daemon=True)
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._process.start()
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
        theirs.close()
        self._answer()

    def time(self, decisions: list[np.ndarray] | None, seconds: float) -> Timing:
        """Time calls on one batch after another for `seconds`; `decisions`: one forced (B, N) a call, None decides
        freely."""
        self._pipe.send((decisions, seconds))
        return self._answer()

    def _answer(self) -> Any:
        answer = self._pipe.recv()
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


def _serve(pipe: Connection, order: tuple[str, bytes, int, int, np.ndarray, float | None]) -> None:
    name, pickled, threads, batch, images, exit_confidence = order
    try:
        net: DynamicNetwork = pickle.loads(pickled)
        prepare = build(name, net, threads, batch, exit_confidence)
        batches = [images[start : start + batch] for start in range(0, len(images) - batch + 1, batch)]
        for _ in range(3):
            prepare(batches[0], None)()
        pipe.send(name)
        while True:
            decisions, seconds = pipe.recv()
            forced = [None] * len(batches) if decisions is None else decisions
            calls = [prepare(batches[k % len(batches)], force) for k, force in enumerate(forced)]
            calls[0]()
            pipe.send(time_calls(calls, seconds))
    except EOFError:
        return
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
