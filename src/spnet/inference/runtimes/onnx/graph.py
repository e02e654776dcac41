"""A thin notebook for ONNX nodes: names are dealt out here, constants live in the (sub)graph that uses them."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from spnet.version import __version__

OPSET = 18
"""The oldest that torch's exporter writes."""
IR_VERSION = 8
"""Old enough for every onnxruntime that the extra allows."""


class Graph:
    """Collects nodes in the order of computation. A branch of an `If` is a graph of its own, with its own weights:
    onnxruntime uses its blocked convolution layout inside a branch only for weights that live there."""

    def __init__(
        self,
        parent: "Graph | None" = None,
        *,
        anchor: bool = False,
        blocked: bool = False,
        features: int = TensorProto.FLOAT,
    ) -> None:
        self.anchor = parent.anchor if parent else anchor
        """Features arrive from an `If` or a gather: see `passes.anchored`."""
        self.blocked = parent.blocked if parent else blocked
        """Features will be kept in the blocked layout (`spnet.inference.runtimes.onnx.blocked`)."""
        self.features = parent.features if parent else features
        """The ONNX type of features between blocks."""
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.descriptions: list[ValueInfoProto] = []
        self.constants: dict[str, np.ndarray] = {}
        """Values of constants, by name, in the precision they were given in."""
        self._numbers: itertools.count[int] = parent._numbers if parent else itertools.count()
        self._small: dict[bytes, str] = {}

    def branch(self) -> "Graph":
        """A sub-graph; it may read this graph's values."""
        return Graph(self)

    def name(self, hint: str) -> str:
        return f"{hint}_{next(self._numbers)}"

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output; returns the output's name."""
        return self.add_many(op, 1, *inputs, **attributes)[0]

    def add_many(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [self.name(op) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=self.name(f"node_{op}"), **attributes))
        return names

    def producer(self, value: str) -> NodeProto | None:
        """The node of this very graph that makes a value, if one does."""
        return next((node for node in reversed(self.nodes) if value in node.output), None)

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """A constant of this graph; small equal ones are stored once."""
        array = np.asarray(values, dtype=dtype, order="C")
        key = f"{array.dtype}{array.shape}".encode() + array.tobytes() if array.size <= 64 else b""
        if key and key in self._small:
            return self._small[key]
        name = self.name("constant")
        self.constants[name] = np.asarray(values)
        self.initializers.append(numpy_helper.from_array(array, name))
        if key:
            self._small[key] = name
        return name

    def describe(self, value: str, shape: Sequence[int | str | None]) -> None:
        """Say what shape inference cannot know about features."""
        self.descriptions.append(helper.make_tensor_value_info(value, self.features, shape))

    def if_else(self, condition: str, yes: "tuple[Graph, str]", no: "tuple[Graph, str]") -> str:
        """Features from either branch; `condition` is a boolean with exactly one element."""
        return self.if_else_many(condition, (yes[0], [yes[1]]), (no[0], [no[1]]), [self.features])[0]

    def if_else_many(
        self, condition: str, yes: "tuple[Graph, list[str]]", no: "tuple[Graph, list[str]]", kinds: Sequence[int]
    ) -> list[str]:
        """Values from either branch, of the ONNX types `kinds`; their shapes are inferred."""
        branches = []
        for g, names in (yes, no):
            nodes, initializers = g._needed(names)
            outputs = [_shapeless(name, kind) for name, kind in zip(names, kinds, strict=True)]
            branches.append(helper.make_graph(nodes, g.name("branch"), [], outputs, initializers))
        then_branch, else_branch = branches
        return self.add_many("If", len(kinds), condition, then_branch=then_branch, else_branch=else_branch)

    def finish(self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> GraphProto:
        nodes, initializers = self._needed([info.name for info in outputs])
        given = {info.name for info in inputs}
        initializers += [t for t in self.initializers if t.name in given and t not in initializers]
        made = {output for node in nodes for output in node.output}
        described = [info for info in self.descriptions if info.name in made]
        return helper.make_graph(nodes, name, inputs, outputs, initializers, value_info=described)

    def _needed(self, outputs: Iterable[str]) -> tuple[list[NodeProto], list[TensorProto]]:
        """The nodes and constants that these values depend on: passes leave nodes behind that nobody reads any more."""
        wanted = set(outputs)
        nodes = []
        for node in reversed(self.nodes):
            if not wanted.isdisjoint(node.output):
                nodes.append(node)
                wanted.update(values_read(node))
        return nodes[::-1], [tensor for tensor in self.initializers if tensor.name in wanted]


def float_value(name: str, shape: Sequence[int | str] | None = None) -> ValueInfoProto:
    """A float value; None: its shape is not known yet."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model_of(graph: GraphProto) -> ModelProto:
    """A graph that is complete, as a model of ours."""
    return helper.make_model(
        graph,
        producer_name="spnet",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


def values_read(node: NodeProto) -> list[str]:
    """What a node takes: its inputs, and what graphs inside it take from outside (their own values may be among
    them)."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            names += [name for inner in attribute.g.node for name in values_read(inner)]
            names += [output.name for output in attribute.g.output]
    return names


def renamed(node: NodeProto, names: dict[str, str]) -> NodeProto:
    """A copy under other names, graphs inside it included; names that are not in the table stay."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for attribute in copy.attribute:
        if attribute.type == AttributeProto.GRAPH:
            inner = attribute.g
            nodes = [renamed(child, names) for child in inner.node]
            del inner.node[:]
            inner.node.extend(nodes)
            for info in (*inner.output, *inner.initializer, *inner.value_info):
                info.name = names.get(info.name, info.name)
    return copy


def _shapeless(name: str, kind: int) -> ValueInfoProto:
    """A branch's output; its shape is inferred."""
    info = ValueInfoProto()
    info.name = name
    info.type.tensor_type.elem_type = kind
    return info
