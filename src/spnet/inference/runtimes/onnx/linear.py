"""What stands at the end of a router or head, as one linear map: hidden values, weight, bias.

Linear layers in a row, columns cut out of their result, columns of zeros put before it: all of that is one matrix. The
network turns it into decisions (`decide`): the difference of two logits, the threshold and forcing cost nothing then.

Shapes: n samples in hand, H hidden values, K outputs.
"""

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from spnet.inference.runtimes.onnx.graph import Graph
from spnet.inference.runtimes.onnx.passes import attributes


@dataclass(frozen=True)
class Linear:
    """hidden @ weight.T + bias.

    Attributes:
        hidden: name of a (n, H) value.
        weight, bias: (K, H) and (K,), float64.
    """

    hidden: str
    weight: np.ndarray
    bias: np.ndarray


def linear(g: Graph, value: str, width: int) -> Linear:
    """A value (n, width) as a linear map of what lies as far back as can be; at worst of itself."""
    found = Linear(value, np.eye(width), np.zeros(width))
    while (node := g.producer(found.hidden)) is not None:
        layer = _layer(g, node, found.hidden)
        if layer is None or layer.weight.shape[0] != found.weight.shape[1]:
            break
        found = Linear(layer.hidden, found.weight @ layer.weight, found.weight @ layer.bias + found.bias)
    return found


def emit(g: Graph, map_: Linear) -> str:
    return g.add("Gemm", map_.hidden, g.constant(map_.weight.T), g.constant(map_.bias))


def _layer(g: Graph, node: NodeProto, output: str) -> Linear | None:
    """One node as a linear map, if it is one whose matrix is known."""
    given = attributes(node)
    constants = [g.constants.get(name) for name in node.input[1:]]
    if any(constant is None for constant in constants):
        return None
    values = [np.asarray(constant) for constant in constants]
    x = node.input[0]
    if node.op_type == "Gemm" and given.get("alpha", 1) == given.get("beta", 1) == 1 and not given.get("transA", 0):
        weight = values[0] if given.get("transB", 0) else values[0].T
        bias = values[1].reshape(-1) if len(values) > 1 else np.zeros(len(weight))
        return Linear(x, weight.astype(np.float64), np.broadcast_to(bias, len(weight)).astype(np.float64))
    if node.op_type == "MatMul" and values[0].ndim == 2:
        return Linear(x, values[0].T.astype(np.float64), np.zeros(values[0].shape[1]))
    width = _width(g, x)
    if width is None:
        return None
    if node.op_type == "Split" and given.get("axis", 0) in (1, -1):
        even = -(-width // len(node.output))
        sizes = values[0] if values else np.full(len(node.output), even)
        place = list(node.output).index(output)
        rows = np.eye(width)[sum(sizes[:place]) :][: sizes[place]]
        return Linear(x, rows, np.zeros(len(rows)))
    if node.op_type == "Slice" and len(values) >= 3 and values[2].tolist() in ([1], [-1]):
        step = int(values[3][0]) if len(values) > 3 else 1
        rows = np.eye(width)[slice(int(values[0][0]), int(values[1][0]), step)]
        return Linear(x, rows, np.zeros(len(rows)))
    if node.op_type == "Pad" and given.get("mode", b"constant") == b"constant" and len(values) == 1:
        top, left, bottom, right = (int(n) for n in values[0]) if values[0].size == 4 else (1, 0, 0, 0)
        if top == bottom == 0 and left >= 0 and right >= 0:
            rows = np.concatenate([np.zeros((left, width)), np.eye(width), np.zeros((right, width))])
            return Linear(x, rows, np.zeros(len(rows)))
    return None


def _width(g: Graph, value: str) -> int | None:
    """Columns of a value that a linear layer of this graph makes, directly or by way of columns cut out of it."""
    node = g.producer(value)
    layer = _layer(g, node, value) if node is not None else None
    return len(layer.weight) if layer is not None else None
