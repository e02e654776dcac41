"""The way through `torch.onnx`: several modules in one export, and its graph cut into theirs.

They are exported side by side because most of the time does not depend on how much there is to do.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx
import torch
from onnx import GraphProto, NodeProto, helper
from torch import Tensor, nn

from spnet.errors import UserError
from spnet.inference.runtimes.onnx.graph import OPSET, renamed, values_read
from spnet.inference.runtimes.onnx.structure import Part


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


def export(parts: Sequence[Part]) -> list[GraphProto]:
    """One graph a part; `UserError` names the first module that torch.onnx cannot export."""
    try:
        return _cut(_torch_onnx(parts), parts)
    except ImportError as error:
        raise UserError(
            "this needs onnx and onnxscript, of which one is missing: pip install 'spnet[onnx]'."
        ) from error
    except Exception as error:
        if len(parts) > 1:
            return [graph for part in parts for graph in export([part])]
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
