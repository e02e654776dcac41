"""A module as ONNX nodes, made by `torch.onnx`: any module, no emitter written by hand.

One export serves every module of the same structure, in this process and, through files in the cache folder, in later
ones: an export takes seconds. Weights are inputs of a fragment; the module's own take their places when it is spliced
into a graph. Everything that a network needs and nobody has yet is exported in one go, as most of the time does not
depend on how much there is to do.
"""

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import GraphProto, NodeProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor, nn

from spnet.data.cache import cache_root
from spnet.errors import UserError
from spnet.executors.onnx.graph import OPSET, values_read
from spnet.executors.onnx.structure import Part, at_test, record
from spnet.files import write_atomically

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
            stored = _load(key)
            if stored is not None:
                _known[key] = stored
            else:
                missing[key] = part
    if missing:
        for key, graph in zip(missing, _export(list(missing.values())), strict=True):
            _store(key, graph)
            _known[key] = _parse(graph)
    return [_known[key] if key else NOTHING for key in keys]


def _key(part: Part) -> str:
    kind = f"{type(part.module).__module__}.{type(part.module).__qualname__} {_inner_kind(part.module)}"
    text = f"{FORMAT} {OPSET} {torch.__version__} {kind}\n{part.structure}"
    return hashlib.sha256(text.encode()).hexdigest()


def _inner_kind(module: nn.Module) -> str:
    return " ".join(f"{type(child).__module__}.{type(child).__qualname__}" for child in module.children())


class _Sheet(nn.Module):
    """Several modules side by side, each with inputs of its own; gives what they compute."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(part.module for part in parts)
        self.counts = [len(part.inputs) for part in parts]
        self.routes = [part.routes for part in parts]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        start = 0
        for module, count, routes in zip(self.parts, self.counts, self.routes, strict=True):
            values = module(*inputs[start : start + count])
            values = values if isinstance(values, (tuple, list)) else (values,)
            computed = {route: value for route, value in zip(routes, values, strict=True) if route >= 0}
            found += [computed[k] for k in sorted(computed)]
            start += count
        return tuple(found)


def _export(parts: Sequence[Part]) -> list[GraphProto]:
    """One graph a part; `UserError` names the first module that torch.onnx cannot export."""
    try:
        return _cut(_torch_onnx(parts), parts)
    except ImportError as error:
        raise UserError(
            "this needs onnx and onnxscript, of which one is missing: pip install 'spnet[onnx]'."
        ) from error
    except Exception as error:
        if len(parts) > 1:
            return [graph for part in parts for graph in _export([part])]
        name = getattr(parts[0].module, "title", type(parts[0].module).__name__)
        why = next((line for line in str(error.__cause__ or error).splitlines() if line.strip()), type(error).__name__)
        if "Constraints violated" in why:
            why = "it fixes the size of the batch, as len(x) does; x.shape[0] does not"
        raise UserError(
            f"torch.onnx cannot export {name} ({why[:120]}): use executor 'branching' or 'gathered'."
        ) from error


def _torch_onnx(parts: Sequence[Part]) -> onnx.ModelProto:
    sheet = _Sheet(parts).eval()
    examples = tuple(x.clone() for part in parts for x in part.inputs)
    # A batch of its own for each part, else a part may ask another one's input for its size.
    batches = tuple({0: torch.export.Dim(f"batch{j}")} for j, part in enumerate(parts) for _ in part.inputs)
    with _quiet():
        program = torch.export.export(sheet, examples, dynamic_shapes=(batches,))
        written = torch.onnx.export(program, (), dynamo=True, verbose=False, opset_version=OPSET, optimize=False)
        assert written is not None
        graph = written.model.graph
        weights = dict(sheet.named_parameters(remove_duplicate=False)) | dict(
            sheet.named_buffers(remove_duplicate=False)
        )
        for name in [name for name in graph.initializers if name in weights]:
            value = graph.initializers.pop(name)  # an input from now on: no constant to be folded away
            value.const_value = None
            graph.inputs.append(value)
        written.optimize()
        return written.model_proto


def _cut(model: onnx.ModelProto, parts: Sequence[Part]) -> list[GraphProto]:
    """The sheet's graph, cut into one graph a part, under the names of a fragment."""
    others = {entry.domain for entry in model.opset_import} - {""}
    if model.functions or others & {node.domain for node in model.graph.node}:
        raise ValueError("it needs operators outside ONNX")
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    sheet = _Sheet(parts)
    owned: dict[str, Tensor] = dict(sheet.named_parameters(remove_duplicate=False))
    owned |= dict(sheet.named_buffers(remove_duplicate=False))
    constants = {tensor.name: tensor for tensor in graph.initializer}
    infos = {info.name: info for info in graph.value_info}
    inputs, outputs = [info.name for info in graph.input if info.name not in owned], [o.name for o in graph.output]
    cut = []
    for part in parts:
        names = {inputs.pop(0): f"x{k}" for k in range(len(part.inputs))}
        ends = [outputs.pop(0) for _ in range(1 + max(part.routes))]
        nodes = list(_reached(ends, producers))
        for name in sorted({name for node in nodes for name in values_read(node)} & owned.keys()):
            number = next((j for j, weight in enumerate(part.weights) if weight is owned[name]), None)
            if number is None:
                raise ValueError(f"its weight {name} is used in a way that cannot be followed")
            names[name] = f"w{number}"
        made = {output for node in nodes for output in node.output if output}
        read = {name for node in nodes for name in values_read(node)} | set(ends)
        if not read <= made | names.keys() | constants.keys():
            raise ValueError("it reads values from outside")
        for k, end in enumerate(ends):  # an output may be a constant, an input after all, or one value twice
            nodes.append(helper.make_node("Identity", [end], [f"y{k}"]))
        piece = GraphProto(name="fragment")
        piece.node.extend(renamed(node, names) for node in nodes)
        piece.initializer.extend(constants[name] for name in sorted(read & constants.keys()))
        piece.value_info.extend(infos[name] for name in sorted(made & infos.keys()))
        for k, x in enumerate(part.inputs):
            piece.value_info.append(helper.make_tensor_value_info(f"x{k}", 1, ["batch", *x.shape[1:]]))
        cut.append(piece)
    return cut


def _reached(ends: Sequence[str], producers: dict[str, NodeProto]) -> Iterator[NodeProto]:
    """The nodes that `ends` depend on, in their order."""
    needed: set[int] = set()
    open_ = list(ends)
    while open_:
        node = producers.get(open_.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            open_ += values_read(node)
    seen: set[int] = set()
    for node in producers.values():
        if id(node) in needed and id(node) not in seen:
            seen.add(id(node))
            yield node


def renamed(node: NodeProto, names: dict[str, str]) -> NodeProto:
    """A copy under other names, graphs inside it included; names that are not in the table stay."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for attribute in copy.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = attribute.g
            nodes = [renamed(child, names) for child in inner.node]
            del inner.node[:]
            inner.node.extend(nodes)
            for info in (*inner.output, *inner.initializer, *inner.value_info):
                info.name = names.get(info.name, info.name)
    return copy


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter warns of its own insides and logs its progress: not for our users, and only while it runs."""
    level, trace = logging.root.manager.disable, logging.getLogger("torch.__trace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        before, trace.disabled = trace.disabled, True  # it does not heed the level
        try:
            yield
        finally:
            logging.disable(level)
            trace.disabled = before
