"""From what routers read to decisions: last layers, biases, threshold and forcing, in as few nodes as possible.

The bias of a router's last layer, the calibrated threshold and the forcing bias do not depend on the features: they
are added up once, for all blocks, in front of the graph.

Shapes: n samples in hand, K_i options of gated block i.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from spnet.inference.runtimes.onnx.decisions import Decision
from spnet.inference.runtimes.onnx.graph import Graph
from spnet.inference.runtimes.onnx.linear import Linear, emit
from spnet.network.dynamic import DynamicNetwork


@dataclass(frozen=True)
class Readout:
    """The option logits of some blocks as one linear map of hidden values.

    Attributes:
        blocks: the gated blocks decided, in order; consecutive among the gated ones.
        map: (n, sum of K_i).
    """

    blocks: tuple[int, ...]
    map: Linear


class Decider:
    """Turns readouts into decisions, and remembers which offsets they need.

    Args:
        raw: also keep raw router logits.
        apart: every block's decision may be needed by itself: samples leave between blocks that are decided together.
        scored: keep the scores; a bound on cost may forbid options.
    """

    def __init__(self, net: DynamicNetwork, *, raw: bool, apart: bool, scored: bool) -> None:
        self.net = net
        self.raw = raw
        self.apart = apart
        self.scored = scored
        self.binary = all(options <= 2 for options in net.options)
        """Two options wherever there is a choice: a decision is the sign of one difference."""
        self.readouts: list[tuple[Readout, str]] = []

    def __call__(self, g: Graph, readout: Readout) -> dict[int, Decision]:
        """The decisions of the readout's blocks, by block."""
        blocks = readout.blocks
        offset = g.name("offset")
        self.readouts.append((readout, offset))
        raws = [""] * len(blocks)
        if self.raw:
            logits = emit(g, readout.map)
            raws = _split(g, logits, self._widths(blocks)) if self.apart else [logits, *raws[1:]]
        weight = readout.map.weight
        weight = weight[1::2] - weight[0::2] if self.binary else weight
        scores = g.add("Gemm", readout.map.hidden, g.constant(weight.T), offset)
        if self.scored and not self.binary:
            parts = zip(blocks, _split(g, scores, self._widths(blocks)), raws, strict=True)
            return {i: Decision(self.net.options[i], "", False, scores=part, raw=raw) for i, part, raw in parts}
        if self.binary:
            chosen = g.add("Greater", scores, g.constant(0.0))
        else:
            counts = {self.net.options[i] for i in blocks}
            assert len(counts) == 1, "blocks decided together have equally many options"
            chosen = g.add("Reshape", scores, g.constant([0, len(blocks), counts.pop()], np.int64))
            chosen = g.add("ArgMax", chosen, axis=2, keepdims=0)
        ones = _split(g, chosen, [1] * len(blocks))
        together = not self.apart and blocks == tuple(range(blocks[0], blocks[-1] + 1))
        shown = [chosen, *[""] * (len(blocks) - 1)] if together else ones
        return {
            i: Decision(self.net.options[i], one, self.binary, shown=show, raw=raw)
            for i, one, show, raw in zip(blocks, ones, shown, raws, strict=True)
        }

    def _widths(self, blocks: Sequence[int]) -> list[int]:
        return [self.net.options[i] for i in blocks]

    @property
    def width(self) -> int:
        """Of all gated blocks' logits together."""
        return sum(self._widths(self.net.gated_indices))

    def prepend_offsets(self, g: Graph, rows: int | str) -> list[ValueInfoProto]:
        """Put last layers' biases + forced bias + shift x cost, split by readout, in front of the graph; returns the
        graph inputs `decision_shift` () and `router_bias` (rows, sum of K_i), which have defaults."""
        net, front = self.net, Graph(g)
        bias = np.concatenate([readout.map.bias for readout, _ in self.readouts])
        costs = np.concatenate([net.option_costs(i).double().cpu().numpy() for i in net.gated_indices])
        if self.binary:
            difference = np.zeros((len(bias), len(net.gated_indices)))
            for column in range(len(net.gated_indices)):
                difference[2 * column : 2 * column + 2, column] = (-1, 1)
            bias, costs = bias @ difference, costs @ difference
            forced = front.add("Gemm", "router_bias", front.constant(difference), front.constant(bias))
        else:
            forced = front.add("Add", "router_bias", front.constant(bias[None]))
        offset = front.add("Add", forced, front.add("Mul", "decision_shift", front.constant(costs[None])))
        sizes = [len(r.blocks) if self.binary else len(r.map.bias) for r, _ in self.readouts]
        names = [name for _, name in self.readouts]
        if len(names) > 1:
            front.nodes.append(helper.make_node("Split", [offset, front.constant(sizes, np.int64)], names, axis=1))
        else:
            front.nodes.append(helper.make_node("Identity", [offset], names))
        shift = net.decision_shift.detach().cpu().float().numpy()
        front.initializers.append(numpy_helper.from_array(shift, "decision_shift"))
        front.initializers.append(numpy_helper.from_array(np.zeros((1, self.width), np.float32), "router_bias"))
        g.nodes[:0] = front.nodes
        g.initializers += front.initializers
        return [
            helper.make_tensor_value_info("decision_shift", TensorProto.FLOAT, ()),
            helper.make_tensor_value_info("router_bias", TensorProto.FLOAT, (rows, self.width)),
        ]


def _split(g: Graph, values: str, widths: Sequence[int]) -> list[str]:
    """Columns, cut into parts."""
    if len(widths) == 1:
        return [values]
    return g.add_many("Split", len(widths), values, g.constant(widths, np.int64), axis=1)
