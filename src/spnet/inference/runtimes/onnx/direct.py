"""Fragments of common operators, written at once: the shortcut past `torch.onnx`, whose import and first export take
seconds.

A part whose operators are all in `operators.WRITERS` needs no exporter: convolutional networks and their routers. A
part with any other operator is exported as a whole. Both ways compute the same, which a test asserts; this one is here
for speed only.
"""

from onnx import GraphProto, helper

from spnet.inference.runtimes.onnx.operators import WRITERS
from spnet.inference.runtimes.onnx.structure import Part
from spnet.inference.runtimes.onnx.writer import NotHere, Writer


def direct(part: Part) -> GraphProto | None:
    """The part's nodes as `fragment._cut` gives them, or None where an operator is not in the table."""
    writer = Writer(part)
    try:
        for call in part.calls:
            write = WRITERS.get(call.operator.removesuffix(".default").removeprefix("aten."))
            if write is None:
                return None
            write(writer, call)
        for k in range(1 + max(part.routes)):
            end = part.ends[part.routes.index(k)]
            writer.nodes.append(helper.make_node("Identity", [writer.read(end)], [f"y{k}"]))
    except NotHere:
        return None
    graph = GraphProto(name="fragment")
    graph.node.extend(writer.nodes)
    graph.initializer.extend(writer.constants)
    known = writer.shapes | {f"x{k}": tuple(x.shape) for k, x in enumerate(part.inputs)}
    for name, shape in known.items():
        graph.value_info.append(helper.make_tensor_value_info(name, 1, ["batch", *shape[1:]]))
    return graph
