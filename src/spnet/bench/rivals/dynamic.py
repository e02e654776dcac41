"""The dynamic network as it is timed: through `Engine.__call__`, as a user calls it; and the session inside, to see
what the door costs."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from spnet.bench.rivals.protocol import Call, Prepare
from spnet.inference.cascade import Cascade, Model

ENGINE, SESSION, PLAIN = "engine", "session", "session-plain"
"""The public door; what it runs; and that without the blocked layout, as exported."""


def _engine(net: Model, threads: int, exit_confidence: float | None) -> Prepare:
    """One network skips, whatever its cost; of a cascade a static member is run as such (`auto`)."""
    from spnet.inference.engine import Engine

    executor = "auto" if isinstance(net, Cascade) else "onnx"
    engine = Engine(net, executor, threads=threads, exit_confidence=exit_confidence)

    def prepare(images: np.ndarray, decisions: np.ndarray | None) -> Call:
        force = None if decisions is None else torch.from_numpy(decisions)
        return partial(engine, torch.from_numpy(images), force)

    return prepare


def _session(net: Model, threads: int, exit_confidence: float | None, layout: str) -> Prepare:
    from spnet.inference.runtimes.onnx.executor import OnnxExecutor
    from spnet.inference.runtimes.onnx.forcing import Forcing

    if isinstance(net, Cascade):
        raise ValueError("a cascade is timed through its engine alone.")
    executor = OnnxExecutor(net, threads, layout=layout, exit_confidence=exit_confidence)
    forcing = Forcing(net)

    def prepare(images: np.ndarray, decisions: np.ndarray | None) -> Call:
        bias = None if decisions is None else forcing(decisions, len(images))
        return partial(executor.arrays, images, bias)

    return prepare


DYNAMIC: dict[str, Callable[[Model, int, float | None], Prepare]] = {
    ENGINE: _engine,
    SESSION: partial(_session, layout="blocked"),
    PLAIN: partial(_session, layout="plain"),
}
