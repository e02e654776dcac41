"""A cascade as one ONNX model, for single images: members one inside the branch of the other.

Shapes: M members, N blocks of all members together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper

from spnet.inference.cascade import Cascade
from spnet.inference.runtimes.onnx.graph import float_value, model_of
from spnet.inference.runtimes.onnx.network import dynamic_model
from spnet.network.trace import UNREACHED

OUTPUTS = ("logits", "decisions", "exit_stage")


def cascade_model(cascade: Cascade) -> ModelProto:
    """Inputs `image` (1, C, H, W) and, with a default, `confidences` (M - 1,) double; outputs `logits` (1, classes),
    `decisions` (1, N), `exit_stage` (1, 1). Members decide at their own thresholds."""
    nodes, initializers = _from(cascade, 0)
    initializers.append(numpy_helper.from_array(np.array(cascade.confidences, np.float64), "confidences"))
    blocks = sum(len(member.blocks) for member in cascade.networks)
    graph = helper.make_graph(
        nodes,
        "cascade",
        [
            float_value("image", (1, *cascade.input_shape)),
            helper.make_tensor_value_info("confidences", TensorProto.DOUBLE, (len(cascade.confidences),)),
        ],
        _outputs("", cascade.num_classes, blocks),
        initializers,
    )
    return model_of(graph)


def _from(cascade: Cascade, k: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """Member `k` and those behind it: nodes and constants of one graph, whose outputs have the prefix of `k`."""
    here, member = _prefix(k), cascade.networks[k]
    own = compose.add_prefix_graph(dynamic_model(member, "single").graph, f"m{k}/")
    constants = list(own.initializer)  # what may be left out of a member's inputs stays at its default
    nodes = [helper.make_node("Identity", ["image"], [f"m{k}/image"]), *own.node]

    def add(operator: str, inputs: Sequence[str], output: str, **how: Any) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [output], **how))
        return output

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.array(value), f"m{k}/{name}"))
        return f"m{k}/{name}"

    stage = constant("stage", [[k]])
    if k == len(cascade.networks) - 1:
        for name, value in zip(OUTPUTS, (f"m{k}/logits", f"m{k}/decisions", stage), strict=True):
            add("Identity", [value], f"{here}{name}")
        return nodes, constants
    axis = constant("axis", [1])
    logits = add("Cast", [f"m{k}/logits"], f"m{k}/wide", to=TensorProto.DOUBLE)  # as `spnet.inference.cascade.sureness`
    below = add("Sub", [logits, add("ReduceMax", [logits, axis], f"m{k}/most")], f"m{k}/below")
    total = add("ReduceSum", [add("Exp", [below], f"m{k}/exponential"), axis], f"m{k}/total")
    sure = add("Reciprocal", [total], f"m{k}/sure")
    asked = add("Gather", ["confidences", constant("place", k)], f"m{k}/asked")
    on = add("Reshape", [add("LessOrEqual", [sure, asked], f"m{k}/unsure"), constant("one", [1])], f"m{k}/on")
    rest = sum(len(later.blocks) for later in cascade.networks[k + 1 :])
    further = _graph(f"member {k + 1}", *_from(cascade, k + 1), _outputs(_prefix(k + 1), cascade.num_classes, rest))
    stop = [
        helper.make_node("Identity", [f"m{k}/logits"], [f"stop{k}/logits"]),
        helper.make_node("Constant", [], [f"stop{k}/decisions"], value=_filled((1, rest), UNREACHED)),
        helper.make_node("Identity", [stage], [f"stop{k}/exit_stage"]),
    ]
    done = _graph(f"answer {k}", stop, [], _outputs(f"stop{k}/", cascade.num_classes, rest))
    found = [f"{here}logits", f"m{k}/rest", f"{here}exit_stage"]
    nodes.append(helper.make_node("If", [on], found, then_branch=further, else_branch=done))
    add("Concat", [f"m{k}/decisions", f"m{k}/rest"], f"{here}decisions", axis=1)
    return nodes, constants


def _prefix(k: int) -> str:
    return f"from{k}/" if k else ""


def _graph(name: str, nodes: list[NodeProto], constants: list[TensorProto], outputs: list) -> GraphProto:
    return helper.make_graph(nodes, name, [], outputs, constants)


def _outputs(prefix: str, classes: int, blocks: int) -> list[Any]:
    kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT64)
    widths = (classes, blocks, 1)
    return [
        helper.make_tensor_value_info(f"{prefix}{name}", kind, (1, width))
        for name, kind, width in zip(OUTPUTS, kinds, widths, strict=True)
    ]


def _filled(shape: tuple[int, int], value: int) -> TensorProto:
    return numpy_helper.from_array(np.full(shape, value, np.int64))
