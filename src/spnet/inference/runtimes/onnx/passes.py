"""A fragment becomes nodes of a graph, with the module's weights and a few rewritings that make it fast.

Each rewriting looks at operators only, never at the type of the module they come from, and computes the same:

- batch norms vanish into the convolution or linear layer before them;
- channels of zeros are appended by a convolution (see `pad_as_convolution`);
- a mean over all pixels is said as such, in the way that onnxruntime can compute in the layout at hand;
- features are anchored where the residual is added to them (see `anchored`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from spnet.inference.runtimes.onnx.fragment import Fragment
from spnet.inference.runtimes.onnx.graph import Graph, renamed, values_read
from spnet.inference.runtimes.onnx.structure import Part

ANCHOR = "anchor"
"""Stands in the name of each node that `anchored` makes."""


class Draft:
    """The nodes of a fragment with weights in their places; constants are folded in float64."""

    def __init__(self, fragment: Fragment, part: Part) -> None:
        self.nodes = [renamed(node, {}) for node in fragment.nodes]
        self.constants = dict(fragment.constants)
        self.shapes = fragment.shapes
        for j, weight in enumerate(part.weights):
            if f"w{j}" in fragment.reads:
                values = weight.detach().cpu().numpy()
                self.constants[f"w{j}"] = values.astype(np.float64) if values.dtype == np.float32 else values

    def readers(self, value: str) -> list[NodeProto]:
        return [node for node in self.nodes if value in values_read(node)]

    def producer(self, value: str) -> NodeProto | None:
        return next((node for node in self.nodes if value in node.output), None)

    def new(self, base: str, values: np.ndarray) -> str:
        """The name of a new constant."""
        name = f"{base}/{len(self.constants)}"
        self.constants[name] = values
        return name

    def replace(self, old: Sequence[NodeProto], new: Sequence[NodeProto]) -> None:
        """Nodes in place of others; the last of the old ones says where."""
        place = max(k for k, node in enumerate(self.nodes) if any(node is gone for gone in old))
        self.nodes[place + 1 : place + 1] = new
        self.nodes = [node for node in self.nodes if not any(node is gone for gone in old)]

    def is_input(self, value: str) -> bool:
        return value in self.shapes and value[:1] == "x" and value[1:].isdigit()

    def rank(self, value: str) -> int | None:
        return len(self.shapes[value]) + 1 if value in self.shapes else None


def splice(g: Graph, part: Part, fragment: Fragment, inputs: Sequence[str]) -> list[str]:
    """Write a part into `g`, reading `inputs`; returns the names of its outputs. Weights become constants of `g`."""
    draft = Draft(fragment, part)
    fold_batch_norms(draft)
    pad_as_convolution(draft)
    means(draft, g)
    if g.anchor:
        anchor_sums(draft)
    names = {f"x{k}": name for k, name in enumerate(inputs)}
    for node in draft.nodes:
        kind = ANCHOR if node.name == ANCHOR else node.op_type
        for value in _values_of(node):
            if value in names:
                continue
            constant = draft.constants.get(value)
            if constant is None:
                names[value] = g.name(kind)
            else:
                wide = constant.dtype == np.float64
                names[value] = g.constant(constant, np.float32 if wide else constant.dtype)
        if node.op_type == "Identity":
            names[node.output[0]] = names[node.input[0]]
            continue
        written = renamed(node, names)
        written.name = g.name(f"node_{kind}")
        g.nodes.append(written)
    return [inputs[~route] if route < 0 else names[f"y{route}"] for route in part.routes]


def fold_batch_norms(draft: Draft) -> None:
    for norm in [node for node in draft.nodes if node.op_type == "BatchNormalization"]:
        layer = draft.producer(norm.input[0])
        foldable = layer is not None and layer.op_type in ("Conv", "Gemm") and len(draft.readers(norm.input[0])) == 1
        if not foldable or any(name not in draft.constants for name in (*layer.input[1:], *norm.input[1:])):  # type: ignore[union-attr]
            continue
        assert layer is not None
        gain, offset, mean, variance = (draft.constants[name].astype(np.float64) for name in norm.input[1:5])
        scale = gain / np.sqrt(variance + attributes(norm).get("epsilon", 1e-5))
        weight = draft.constants[layer.input[1]].astype(np.float64)
        last = layer.op_type == "Gemm" and not attributes(layer).get("transB", 0)
        weight = weight * (scale if last else scale.reshape(-1, *(1,) * (weight.ndim - 1)))
        bias = draft.constants[layer.input[2]] if len(layer.input) > 2 else np.zeros(len(scale))
        layer.input[1:] = [draft.new("weight", weight), draft.new("bias", (bias - mean) * scale + offset)]
        layer.output[0] = norm.output[0]
        draft.nodes = [node for node in draft.nodes if node is not norm]


def pad_as_convolution(draft: Draft) -> None:
    """Channels of zeros appended, after subsampling or not, as one 1x1 convolution with weights 0 and 1: exact, and
    unlike Slice and Pad it does not leave the blocked layout, which would cost every later block its fused sum."""
    for pad in [node for node in draft.nodes if node.op_type == "Pad"]:
        pads = draft.constants.get(pad.input[1])
        fill = draft.constants.get(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(())
        shape = draft.shapes.get(pad.input[0])
        plain = attributes(pad).get("mode", b"constant") == b"constant" and len(pad.input) < 4
        if pads is None or fill is None or shape is None or len(shape) != 3 or not plain or np.any(fill != 0):
            continue
        extra = int(pads[5]) if len(pads) == 8 else 0
        if extra <= 0 or np.count_nonzero(pads) != 1:
            continue
        old, x, strides = [pad], pad.input[0], [1, 1]
        while (
            (cut := draft.producer(x)) is not None and len(draft.readers(x)) == 1 and (step := _subsampling(draft, cut))
        ):
            axis, stride = step
            strides[axis - 2] *= stride
            old.append(cut)
            x = cut.input[0]
        weight = draft.new("pad", np.eye(shape[0] + extra, shape[0])[:, :, None, None])
        made = helper.make_node("Conv", [x, weight], pad.output, kernel_shape=[1, 1], strides=strides)
        draft.replace(old, [made])


def _subsampling(draft: Draft, node: NodeProto) -> tuple[int, int] | None:
    """(axis, stride) of a Slice that keeps every stride-th row or column, the first one included."""
    if node.op_type != "Slice" or len(node.input) < 5:
        return None
    values = [draft.constants.get(name) for name in node.input[1:5]]
    if any(value is None or value.size != 1 for value in values):
        return None
    start, end, axis, stride = (int(value.item()) for value in values if value is not None)
    return (axis, stride) if start == 0 and end >= 2**31 - 1 and axis in (2, 3) and stride > 0 else None


def means(draft: Draft, g: Graph) -> None:
    """Means over all pixels, also where they are written as a sum and a division."""
    for node in [node for node in draft.nodes if node.op_type in ("ReduceMean", "ReduceSum")]:
        axes = draft.constants.get(node.input[1]) if len(node.input) > 1 else None
        x = node.input[0]
        if axes is None or draft.rank(x) != 4 or sorted(int(a) % 4 for a in axes) != [2, 3]:
            continue
        old, output = [node], node.output[0]
        if node.op_type == "ReduceSum":
            readers = draft.readers(output)
            divisor = draft.constants.get(readers[0].input[1]) if readers and readers[0].op_type == "Div" else None
            pixels = draft.shapes[x][1] * draft.shapes[x][2]
            if len(readers) != 1 or divisor is None or divisor.size != 1 or divisor.item() != pixels:
                continue
            old, output = [node, readers[0]], readers[0].output[0]
        keep = attributes(node).get("keepdims", 1)
        if g.blocked:
            new, source = [], x
            if draft.is_input(x):
                source = f"{output}/{ANCHOR}"
                new.append(anchored(draft, x, source))
            pooled = output if keep else f"{output}/pooled"
            new.append(helper.make_node("GlobalAveragePool", [source], [pooled]))
            if not keep:
                new.append(helper.make_node("Flatten", [pooled], [output]))
        else:
            new = [helper.make_node("ReduceMean", [x, node.input[1]], [output], keepdims=keep)]
        draft.replace(old, new)


def anchor_sums(draft: Draft) -> None:
    for node in [node for node in draft.nodes if node.op_type == "Add"]:
        for k, value in enumerate(node.input):
            if draft.is_input(value) and draft.rank(value) == 4 and draft.producer(node.input[1 - k]) is not None:
                name = f"{node.output[0]}/{ANCHOR}"
                place = next(i for i, other in enumerate(draft.nodes) if other is node)
                draft.nodes.insert(place, anchored(draft, value, name))
                node.input[:] = [node.input[1 - k], name]  # onnxruntime sums inside the first convolution it meets
                break


def anchored(draft: Draft, x: str, output: str) -> NodeProto:
    """x, said to onnxruntime in a way it computes in the blocked layout: a depthwise 1x1 convolution of ones, exact.

    Features that come from an `If` or a gather are in the plain layout. With an anchor the residual sum happens
    inside the blocked convolution; without, it is two more passes over the features. A 1x1 pool would say the same,
    but onnxruntime takes pools only where the channels fill its blocks, convolutions also where they are padded.
    Deviation: a node that computes nothing.
    """
    channels = draft.shapes[x][0]
    ones = draft.new(ANCHOR, np.ones((channels, 1, 1, 1)))
    return helper.make_node("Conv", [x, ones], [output], ANCHOR, kernel_shape=[1, 1], group=channels)


def attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _values_of(node: NodeProto) -> list[str]:
    """Everything a node reads or makes, graphs inside it included."""
    inner = [name for a in node.attribute if a.HasField("g") for child in a.g.node for name in _values_of(child)]
    tensors = [tensor.name for a in node.attribute if a.HasField("g") for tensor in a.g.initializer]
    return [name for name in (*values_read(node), *node.output, *inner, *tensors) if name]
