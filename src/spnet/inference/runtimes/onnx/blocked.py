"""Keep features in onnxruntime's blocked convolution layout from the stem to the head.

onnxruntime lays channels out in blocks of the processor's vector width around its fast convolutions, but it never
carries that layout across an `If`, a gather or a scatter: every block that runs pays one reordering in and one out.
Skipping moves whole samples, so those operators do not care about the layout inside a sample. This pass lets
onnxruntime optimise the model for this machine, then deletes each pair of reorderings that meets across such
operators. The result uses onnxruntime's internal
node types and fits this machine and version only: it is run, never exported. Where onnxruntime has no blocked
layout, the model comes back unchanged.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from spnet.inference.runtimes.onnx.library import optimise
from spnet.inference.runtimes.onnx.passes import ANCHOR

BLOCKED = "com.microsoft.nchwc"
WIDEST_BLOCK = 16
"""Channels in a block of the widest vectors; narrower ones take 8."""
_MOVES_SAMPLES = {"GatherND": (0,), "ScatterND": (0, 2), "Identity": (0,), "Concat": None}
"""Operators that move samples as a whole -> which of their inputs hold features (None: all, if along the batch)."""
_ANY_LAYOUT = ("Shape",)


def blocked(model: ModelProto) -> ModelProto:
    """The same computation without the reorderings that cancel; the input model is left as it is."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimised.onnx"
        optimise(model, file)
        fast = onnx.load(file)
    _make_names_unique(fast.graph)
    graphs = list(_graphs(fast.graph))
    for g in graphs:
        _pool_in_blocks(g)
    pooled = {node.output[0] for g in graphs for node in g.node if _is(node, "GlobalAveragePool")}
    carried = _carried(graphs)
    alias: dict[str, str] = {}
    for g in reversed(graphs):  # inner graphs first: extending a list of nodes copies them
        kept = []
        for node in g.node:
            if (
                (_is(node, "ReorderOutput") and node.output[0] in carried)
                or (_is(node, "ReorderInput") and node.input[0] in carried)
                or _is_nothing(node)
                or _reorders_one_pixel(node, pooled)
            ):
                alias[node.output[0]] = node.input[0]
            else:
                kept.append(node)
        del g.node[:]
        g.node.extend(kept)
    for g in _graphs(fast.graph):
        for node in g.node:
            node.input[:] = [_resolve(alias, name) for name in node.input]
        for output in g.output:
            output.name = _resolve(alias, output.name)
    return fast


def _pool_in_blocks(graph: GraphProto) -> None:
    """Reorder after a mean over all pixels, not before: onnxruntime does so only where channels fill its blocks."""
    reordered = {node.output[0]: node for node in graph.node if _is(node, "ReorderOutput")}
    for place, pool in reversed(list(enumerate(graph.node))):
        before = reordered.get(pool.input[0]) if pool.op_type == "GlobalAveragePool" else None
        if before is None:
            continue
        after, mean = NodeProto(), pool.output[0]
        after.CopyFrom(before)
        pool.input[0], pool.output[0], pool.domain = before.input[0], f"{mean}/blocked", BLOCKED
        after.input[0], after.output[0], after.name = pool.output[0], mean, f"{mean}/reordered"
        graph.node.insert(place + 1, after)


def _carried(graphs: list[GraphProto]) -> set[str]:
    """Values that can stay blocked: the largest set closed under how they are made and used."""
    nodes = [node for g in graphs for node in g.node]
    branch_outputs: dict[str, list[str]] = {}
    """Output of an `If` -> the outputs of its branches that become it."""
    ties: list[tuple[str, str]] = []
    """Pairs of values that are blocked together or not at all."""
    candidates: set[str] = set()
    refused: set[str] = set()
    for node in nodes:
        if _is(node, "ReorderOutput"):
            candidates.add(node.output[0])
        elif node.op_type == "If":
            for position, value in enumerate(node.output):
                candidates.add(value)
                branch_outputs[value] = [a.g.output[position].name for a in node.attribute]
                ties += [(value, inner) for inner in branch_outputs[value]]
        elif _moves_samples(node):
            candidates.add(node.output[0])
            held = _MOVES_SAMPLES[node.op_type]
            ties += [(node.output[0], node.input[k]) for k in (range(len(node.input)) if held is None else held)]
        elif not (_is(node, "ReorderInput") or node.op_type in _ANY_LAYOUT):
            refused.update(node.input)
    refused.update(output.name for output in graphs[0].output)
    carried = candidates - refused
    while True:
        smaller = carried - {a for a, b in ties if b not in carried} - {b for a, b in ties if a not in carried}
        if smaller == carried:
            return carried
        carried = smaller


def _make_names_unique(graph: GraphProto, scope: dict[str, str] | None = None, prefix: str = "") -> None:
    """onnxruntime names its new nodes anew in every branch; give each value of a branch a name of its own."""
    scope = dict(scope or {})
    if prefix:
        own = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
        scope.update({name: f"{prefix}{name}" for name in own if name})
        for tensor in graph.initializer:
            tensor.name = scope[tensor.name]
        for info in (*graph.output, *graph.value_info):
            info.name = scope.get(info.name, info.name)
    for node in graph.node:
        node.input[:] = [scope.get(name, name) for name in node.input]
        node.output[:] = [scope.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _make_names_unique(attribute.g, scope, f"{node.output[0]}/{attribute.name}/")


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all graphs inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _is(node: NodeProto, op: str) -> bool:
    return node.domain == BLOCKED and node.op_type == op


def _moves_samples(node: NodeProto) -> bool:
    return node.op_type in _MOVES_SAMPLES and all(a.i == 0 for a in node.attribute if a.name == "axis")


def _is_nothing(node: NodeProto) -> bool:
    """An anchor (`passes.anchored`) that nothing was fused into."""
    fused = len(node.input) > 2 or any(a.name == "activation" for a in node.attribute)
    return node.op_type == "Conv" and ANCHOR in node.name and not fused


def _reorders_one_pixel(node: NodeProto, pooled: set[str]) -> bool:
    """Pooled features out of the blocked layout: of one pixel, and with whole blocks of channels, both are the same."""
    channels = next((a.i for a in node.attribute if a.name == "channels"), 1)
    return _is(node, "ReorderOutput") and node.input[0] in pooled and channels % WIDEST_BLOCK == 0


def _resolve(alias: dict[str, str], name: str) -> str:
    while name in alias:
        name = alias[name]
    return name
