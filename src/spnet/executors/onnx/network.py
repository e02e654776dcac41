"""A `DynamicNetwork` as an ONNX model, in the forms that won when measured.

- `single`: batch 1; one `If` per gated block, the branch's weights inside the branch.
- `batch`: any batch size; router -> NonZero -> GatherND -> block -> ScatterND; an option nobody takes costs nothing.
- `path`: no routers; one fixed path for every sample. All blocks in full is the static network.

Inputs of the first two: `image` (B, C, H, W) normalised float32; and two with defaults, so that they may be left out:
`decision_shift` (), the calibrated threshold, and `router_bias` (1 or B, sum of K_i over gated blocks), added to the
option logits, with which decisions are forced while routers really run. Outputs: `logits` (B, classes), `decisions`
(B, N) int64, and, when asked for, `router_logits` (B, sum of K_i), raw.

Deviation from eager: where every block has two options, the two logits' difference is computed directly; it rounds
differently, so decisions may differ where the margin is below 1e-4 or so.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from spnet.backbones.base import Block
from spnet.dynamic import DynamicNetwork
from spnet.errors import UserError
from spnet.executors.onnx.blocks import block_emitter, emit_block
from spnet.executors.onnx.decisions import Decision
from spnet.executors.onnx.graph import IR_VERSION, OPSET, Graph
from spnet.executors.onnx.layers import emit_layers
from spnet.executors.onnx.routers import Readout, emit_router
from spnet.version import __version__

Form = Literal["single", "batch"]


def path_model(net: DynamicNetwork, path: Sequence[int] | None = None) -> ModelProto:
    """The network down one path (N options; None: every block in full), without routers. Outputs `logits` only."""
    options = [k - 1 for k in net.options] if path is None else list(path)
    g = Graph()
    x = emit_layers(g, net.backbone.stem, "image")
    for block, option in zip(net.blocks, options, strict=True):
        x = emit_block(g, block, option, x)
    logits = emit_layers(g, net.backbone.head, emit_layers(g, net.backbone.pool, x))
    g.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    return _model(g, [_image(net, "batch")], [_float("logits", "batch", net.num_classes)])


def dynamic_model(
    net: DynamicNetwork, form: Form, *, router_logits: bool = False, for_blocked: bool = False
) -> ModelProto:
    """The network with its routers, deciding by the test rule. `for_blocked` prepares it for `blocked.blocked`."""
    return _Walk(net, form, router_logits, for_blocked).model()


def check_form(net: DynamicNetwork) -> None:
    """Raise `UserError` when a part of this network has no ONNX form, or its weights are not float32."""
    for block in net.blocks:
        block_emitter(block)
    if net.router is not None:
        emit_router(net.router)
    coarse = {str(p.dtype) for p in net.parameters() if p.dtype != torch.float32}
    if coarse:
        raise UserError(f"the onnx executor computes in float32, this network's weights are {coarse.pop()}.")
    dynamic_model(net, "single")  # whatever lies in the stem, the blocks and the head


class _Walk:
    """Emits the blocks in the order of the eager loop."""

    def __init__(self, net: DynamicNetwork, form: Form, router_logits: bool, for_blocked: bool) -> None:
        self.net = net
        self.form = form
        self.keep_logits = router_logits and any(net.gated)
        self.g = Graph(anchor=True, blocked=for_blocked)
        self.gated = net.gated_indices
        self.binary = all(options == 2 for options in net.options)
        """Two options everywhere: a decision is the sign of one difference."""
        with torch.no_grad():
            self.rank = net.backbone.stem(torch.zeros(1, *net.input_shape)).dim()
        self.readouts: list[tuple[Readout, str]] = []
        self.columns: dict[int, str] = {}
        """First block -> (B, n) decisions of n neighbouring blocks."""
        self.logits: list[str] = []

    def model(self) -> ModelProto:
        net, g = self.net, self.g
        batch = 1 if self.form == "single" else "batch"
        decisions: dict[int, Decision] = {}
        emitter = emit_router(net.router) if net.router is not None else None
        readout = emitter.start(g, "image") if emitter else None
        if readout:
            decisions.update(self._decide(readout))
        x = emit_layers(g, net.backbone.stem, "image")
        for i, block in enumerate(net.blocks):
            if not net.gated[i]:
                x = emit_block(g, block, net.options[i] - 1, x)
                continue
            assert emitter is not None
            if i not in decisions:
                decisions.update(self._decide(emitter.read(g, i, x, self._pooled(x))))
            emitter.observe(g, i, self._option(decisions[i]))
            choose = self._choose_one if self.form == "single" else self._choose_rows
            x = choose(block, decisions[i], x)
        logits = emit_layers(g, net.backbone.head, emit_layers(g, net.backbone.pool, x))
        g.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
        outputs = [_float("logits", batch, net.num_classes), self._join_decisions(batch)]
        width = sum(net.options[i] for i in self.gated)
        if self.keep_logits:
            g.nodes.append(helper.make_node("Concat", self.logits, ["router_logits"], axis=1))
            outputs.append(_float("router_logits", batch, width))
        inputs = [_image(net, batch)]
        if self.gated:
            self._prepend_offsets()
            g.initializers.append(
                numpy_helper.from_array(net.decision_shift.detach().cpu().float().numpy(), "decision_shift")
            )
            g.initializers.append(numpy_helper.from_array(np.zeros((1, width), np.float32), "router_bias"))
            inputs += [_float("decision_shift"), _float("router_bias", 1 if batch == 1 else "bias_rows", width)]
        return _model(g, inputs, outputs)

    def _pooled(self, x: str) -> Callable[[], str]:
        return lambda: emit_layers(self.g, self.net.backbone.pool, x)

    def _option(self, decision: Decision) -> Callable[[], str]:
        if not decision.binary:
            return lambda: decision.one
        return lambda: self.g.add("Cast", decision.one, to=TensorProto.INT64)

    def _decide(self, readout: Readout) -> dict[int, Decision]:
        """Logits of some blocks -> their decisions. The bias, threshold and forcing come as one offset, made in
        front."""
        g, blocks = self.g, readout.blocks
        offset = g.name("offset")
        self.readouts.append((readout, offset))
        if self.keep_logits:
            self.logits.append(g.add("Gemm", readout.hidden, g.constant(readout.weight.T), g.constant(readout.bias)))
        weight = readout.weight[1::2] - readout.weight[0::2] if self.binary else readout.weight
        scores = g.add("Gemm", readout.hidden, g.constant(weight.T), offset)
        if self.binary:
            chosen = g.add("Greater", scores, g.constant(0.0))
        else:
            counts = {self.net.options[i] for i in blocks}
            assert len(counts) == 1, "blocks decided together have equally many options"
            chosen = g.add("Reshape", scores, g.constant([0, len(blocks), counts.pop()], np.int64))
            chosen = g.add("ArgMax", chosen, axis=2, keepdims=0)
        parts = [chosen] if len(blocks) == 1 else g.add_many("Split", len(blocks), chosen, axis=1)
        if blocks == tuple(range(blocks[0], blocks[-1] + 1)):
            self.columns[blocks[0]] = chosen
        else:  # a block without a router lies between
            self.columns.update(zip(blocks, parts, strict=True))
        return {i: Decision(self.net.options[i], part, self.binary) for i, part in zip(blocks, parts, strict=True)}

    def _prepend_offsets(self) -> None:
        """Last layers' biases + forced bias + shift x cost, for all blocks at once, split by readout."""
        g = Graph(self.g)
        bias = np.concatenate([readout.bias for readout, _ in self.readouts])
        costs = np.concatenate([self.net.option_costs(i).double().cpu().numpy() for i in self.gated])
        if self.binary:
            difference = np.zeros((len(bias), len(self.gated)))
            for column in range(len(self.gated)):
                difference[2 * column : 2 * column + 2, column] = (-1, 1)
            bias, costs = bias @ difference, costs @ difference
            forced = g.add("Gemm", "router_bias", g.constant(difference), g.constant(bias))
        else:
            forced = g.add("Add", "router_bias", g.constant(bias[None]))
        offset = g.add("Add", forced, g.add("Mul", "decision_shift", g.constant(costs[None])))
        sizes = [len(r.blocks) if self.binary else len(r.bias) for r, _ in self.readouts]
        names = [name for _, name in self.readouts]
        if len(names) > 1:
            g.nodes.append(helper.make_node("Split", [offset, g.constant(sizes, np.int64)], names, axis=1))
        else:
            g.nodes.append(helper.make_node("Identity", [offset], names))
        self.g.nodes[:0] = g.nodes
        self.g.initializers += g.initializers

    def _choose_one(self, block: Block, decision: Decision, x: str) -> str:
        """Batch 1: a chain of `If`s from the full option down."""

        def options_up_to(g: Graph, k: int) -> str:
            if k == 0:
                y = emit_block(g, block, 0, x)
                return g.add("Identity", y) if y == x else y
            return g.if_else(conditions[k], branch(k, exactly=True), branch(k - 1, exactly=False))

        def branch(k: int, exactly: bool) -> tuple[Graph, str]:
            g = self.g.branch()
            return g, emit_block(g, block, k, x) if exactly else options_up_to(g, k)

        conditions = {k: decision.takes(self.g, k) for k in range(1, decision.options)}
        return options_up_to(self.g, decision.options - 1)

    def _choose_rows(self, block: Block, decision: Decision, x: str) -> str:
        """Any batch: gather the samples of an option, run it, put the results back."""
        g = self.g
        first = 1 if block.identity_skip else 0  # skipped samples stay where they are
        rows = [decision.rows_of(g, k) for k in range(first, decision.options)]
        parts = [emit_block(g, block, k, self._gather(x, r)) for k, r in enumerate(rows, first)]
        if block.identity_skip:
            for r, part in zip(rows, parts, strict=True):
                x = g.add("ScatterND", x, r, part)
            return x
        # The shape changes, so there is nothing to write into: line the parts up and undo the sorting.
        batch = g.add("Squeeze", g.add("Shape", "image", start=0, end=1), g.constant([0], np.int64))
        order = g.add("Range", g.constant(0, np.int64), batch, g.constant(1, np.int64))
        place = g.add("ScatterND", order, g.add("Concat", *rows, axis=0), order)
        place = g.add("Unsqueeze", place, g.constant([1], np.int64))
        whole = g.add("GatherND", g.add("Concat", *parts, axis=0), place)
        g.describe(whole, ["batch", *[None] * (self.rank - 1)])
        return whole

    def _gather(self, x: str, rows: str) -> str:
        """The samples at `rows`. Their unknown number is given a name: without it onnxruntime cannot tell that the
        two sides of the residual sum have one shape, and computes the sum outside the convolution."""
        part = self.g.add("GatherND", x, rows)
        self.g.describe(part, [f"samples_of_{part}", *[None] * (self.rank - 1)])
        return part

    def _join_decisions(self, batch: int | str) -> ValueInfoProto:
        """Concatenate the decisions of all blocks; ungated blocks show their last option."""
        g, net = self.g, self.net
        kind = np.bool_ if self.binary else np.int64
        rows = g.add("Concat", g.add("Shape", "image", start=0, end=1), g.constant([1], np.int64), axis=0)
        columns = []
        for i in range(len(net.blocks)):
            if i in self.columns:
                columns.append(self.columns[i])
            elif not net.gated[i]:
                columns.append(g.add("Expand", g.constant(net.options[i] - 1, kind), rows))
        joined = g.add("Concat", *columns, axis=1)
        g.nodes.append(helper.make_node("Cast", [joined], ["decisions"], to=TensorProto.INT64))
        return helper.make_tensor_value_info("decisions", TensorProto.INT64, [batch, len(net.blocks)])


def _image(net: DynamicNetwork, batch: int | str) -> ValueInfoProto:
    return _float("image", batch, *net.input_shape)


def _float(name: str, *shape: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(g: Graph, inputs: list, outputs: list) -> ModelProto:
    return helper.make_model(
        g.finish("spnet", inputs, outputs),
        producer_name="spnet",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
