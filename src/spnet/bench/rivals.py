"""What is timed: the static network in its strongest forms, and the dynamic one. Each runs in a process of its own.

The dynamic network is timed through `Engine.__call__`, as a user calls it. The session inside is timed beside it, to
see what the door costs. The static networks are called as a careful engineer would: arrays in, arrays out.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spnet.errors import choose
from spnet.inference.cascade import Cascade, Model
from spnet.network.dynamic import DynamicNetwork

Call = Callable[[], Any]
Prepare = Callable[[np.ndarray, np.ndarray | None], Call]
"""(images (B, C, H, W) normalised float32, decisions (B, N) to force or None for own ones) -> what is timed."""

STATIC = ("eager", "folded", "onnx-intra", "onnx-workers")
ENGINE, SESSION, PLAIN = "engine", "session", "session-plain"
"""The public door; what it runs; and that without the blocked layout, as exported."""
VARIANTS = (*STATIC, "compiled", ENGINE, SESSION, PLAIN)


def rivals_for(threads: int, batch: int, compiled: bool) -> list[str]:
    """The static rivals worth running: workers differ from threads inside a session only for batches on several
    cores."""
    names = [name for name in STATIC if name != "onnx-workers" or (threads > 1 and batch > 1)]
    return names + (["compiled"] if compiled else [])


def build(name: str, net: Model, threads: int, batch: int, exit_confidence: float | None = None) -> Prepare:
    """One variant, ready to be given batches; own decisions of a dynamic one leave early at `exit_confidence`."""
    choose("variant", name, VARIANTS)
    torch.set_num_threads(threads)
    net.eval()
    if name == ENGINE:
        return _engine(net, threads, exit_confidence)
    if isinstance(net, Cascade):
        raise ValueError("a cascade is timed through its engine alone.")
    if name in (SESSION, PLAIN):
        return _session(net, threads, exit_confidence, layout="plain" if name == PLAIN else "blocked")
    if name.startswith("onnx"):
        from spnet.inference.runtimes.onnx.executor import StaticExecutor

        executor = StaticExecutor(net, threads, workers=name == "onnx-workers")
        return lambda images, decisions: partial(executor.run, images)
    plain: Any = net.backbone if name == "eager" else folded(net.backbone).to(memory_format=torch.channels_last)
    if name == "compiled":
        plain = torch.compile(plain)

    def call(images: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(images)
        with torch.inference_mode():
            return plain(x if name == "eager" else x.contiguous(memory_format=torch.channels_last))

    return lambda images, decisions: partial(call, images)


def _engine(net: Model, threads: int, exit_confidence: float | None) -> Prepare:
    """One network skips, whatever its cost; of a cascade a static member is run as such (`auto`)."""
    from spnet.inference.engine import Engine

    executor = "auto" if isinstance(net, Cascade) else "onnx"
    engine = Engine(net, executor, threads=threads, exit_confidence=exit_confidence)

    def prepare(images: np.ndarray, decisions: np.ndarray | None) -> Call:
        force = None if decisions is None else torch.from_numpy(decisions)
        return partial(engine, torch.from_numpy(images), force)

    return prepare


def _session(net: DynamicNetwork, threads: int, exit_confidence: float | None, layout: str) -> Prepare:
    from spnet.inference.runtimes.onnx.executor import OnnxExecutor
    from spnet.inference.runtimes.onnx.forcing import Forcing

    executor = OnnxExecutor(net, threads, layout=layout, exit_confidence=exit_confidence)
    forcing = Forcing(net)

    def prepare(images: np.ndarray, decisions: np.ndarray | None) -> Call:
        bias = None if decisions is None else forcing(decisions, len(images))
        return partial(executor.arrays, images, bias)

    return prepare


def folded(module: nn.Module) -> nn.Module:
    """A copy with every batch norm folded into the convolution before it in the same `Sequential`."""
    module = copy.deepcopy(module).eval()
    for part in list(module.modules()):
        if isinstance(part, nn.Sequential):
            for k in range(len(part) - 1):
                first, second = part[k], part[k + 1]
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    part[k], part[k + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return module
