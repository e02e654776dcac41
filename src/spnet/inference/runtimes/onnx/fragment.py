"""A module as ONNX nodes, made by `torch.onnx`: any module, no emitter written by hand.

One export serves every module of the same structure, in this process and, through files in the cache folder, in later
ones: an export takes seconds. Weights are inputs of a fragment; the module's own take their places when it is spliced
into a graph.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from onnx import GraphProto, NodeProto, ValueInfoProto, numpy_helper
from torch import Tensor, nn

from spnet.data.cache import cache_root
from spnet.errors import UserError
from spnet.files import write_atomically
from spnet.inference.runtimes.onnx.direct import direct
from spnet.inference.runtimes.onnx.exporter import export
from spnet.inference.runtimes.onnx.graph import OPSET, values_read
from spnet.inference.runtimes.onnx.structure import Part, at_test, record

FORMAT = 1
"""Raised when fragments are made in another way: those on disk are then made anew."""


@dataclass(frozen=True)
class Fragment:
    """The nodes of a module.

    Inputs are named x0, x1, ..., weights w0, w1, ..., in the order of a `Part`'s; computed outputs y0, y1, ...

    Attributes:
        shapes: of values, without the batch, where they are known: they hold for any number of samples.
    """

    nodes: tuple[NodeProto, ...]
    constants: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]

    @cached_property
    def reads(self) -> frozenset[str]:
        """Inputs and weights that the nodes read."""
        return frozenset(name for node in self.nodes for name in values_read(node))


NOTHING = Fragment((), {}, {})
_known: dict[str, Fragment] = {}


def fragment(module: nn.Module, *inputs: Tensor) -> Fragment:
    """The nodes of one module for inputs shaped like the examples, the batch (at least 2) first and of any size.

    Raises:
        UserError: torch.onnx cannot export it.
    """
    with at_test(module):
        part = record(module, *inputs)
        return fragments([part])[0]


def fragments(parts: Sequence[Part]) -> list[Fragment]:
    """The nodes of each part; those of a new structure are exported together. To be called under `at_test`."""
    keys = [_key(part) if part.computes else "" for part in parts]
    missing: dict[str, Part] = {}
    for key, part in zip(keys, parts, strict=True):
        if key and key not in _known and key not in missing:
            at_once = direct(part)
            stored = _parse(at_once) if at_once is not None else _load(key)
            if stored is not None:
                _known[key] = stored
            else:
                missing[key] = part
    if missing:
        for key, graph in zip(missing, export(list(missing.values())), strict=True):
            _store(key, graph)
            _known[key] = _parse(graph)
    return [_known[key] if key else NOTHING for key in keys]


def _key(part: Part) -> str:
    kind = f"{type(part.module).__module__}.{type(part.module).__qualname__} {_inner_kind(part.module)}"
    text = f"{FORMAT} {OPSET} {torch.__version__} {kind}\n{part.structure}"
    return hashlib.sha256(text.encode()).hexdigest()


def _inner_kind(module: nn.Module) -> str:
    return " ".join(f"{type(child).__module__}.{type(child).__qualname__}" for child in module.children())


def _parse(graph: GraphProto) -> Fragment:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {info.name: shape for info in graph.value_info if (shape := _shape(info)) is not None}
    return Fragment(tuple(graph.node), constants, shapes)


def _shape(info: ValueInfoProto) -> tuple[int, ...] | None:
    """A value's dimensions after the batch, or None where one of them is unknown."""
    dims = info.type.tensor_type.shape.dim[1:]
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def _file(key: str) -> Path:
    return cache_root() / "fragments" / f"{key}.onnx"


def _load(key: str) -> Fragment | None:
    """From the cache; a file that is damaged counts as none."""
    try:
        graph = GraphProto.FromString(_file(key).read_bytes())
    except Exception:  # missing, unreadable, no graph
        return None
    return _parse(graph) if graph.name == "fragment" else None


def _store(key: str, graph: GraphProto) -> None:
    content = graph.SerializeToString()
    with contextlib.suppress(UserError, OSError):  # without a cache the next process exports again
        write_atomically(_file(key), lambda path: _write(content, path))


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)
