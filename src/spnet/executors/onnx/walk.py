"""The walk over a network that writes it down as a graph, in the order of `DynamicNetwork.forward`.

Shapes: n samples in hand (B at first, fewer after an early exit), N blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from onnx import TensorProto

from spnet.dynamic import DynamicNetwork
from spnet.executors.onnx.allowance import afford
from spnet.executors.onnx.blocks import emit_block
from spnet.executors.onnx.decide import Decider
from spnet.executors.onnx.decisions import Decision
from spnet.executors.onnx.forms import Form, Take, Values
from spnet.executors.onnx.graph import Graph
from spnet.executors.onnx.layers import emit_layers, folded, numbers
from spnet.executors.onnx.routers import RouterEmitter, emit_router
from spnet.trace import UNREACHED


@dataclass(frozen=True)
class Rules:
    """What a graph asks for beside the test rule.

    Attributes:
        exits: samples leave at a stage head that is sure enough (graph input `exit_confidence`).
        bounded: no sample spends more than its allowance (graph input `allowance`).
    """

    exits: bool = False
    bounded: bool = False


@dataclass
class _Hand:
    """What the walk has in hand: the names of values, and the graph they go on in."""

    g: Graph
    x: str
    pooled: str | None
    left: str
    """(n, 1) int64, what samples may still spend; "" where nothing bounds them."""
    decided: dict[int, Decision]
    """Decisions of blocks ahead."""

    def of(self, g: Graph, take: Take) -> "_Hand":
        """The same for the samples that stay, which go on in `g`."""
        return _Hand(
            g,
            take(self.x),
            self.pooled and take(self.pooled),
            self.left and take(self.left),
            {i: decision.of(take) for i, decision in self.decided.items()},
        )


class Walk:
    """Writes a network into a graph.

    Args:
        raw: also put out raw router logits.
    """

    def __init__(self, net: DynamicNetwork, form: Form, *, raw: bool, rules: Rules) -> None:
        self.net = net
        self.form = form
        self.rules = rules
        self.raw = raw and any(net.gated)
        self.decide = Decider(net, raw=self.raw, apart=rules.exits, scored=rules.bounded)
        ends = [i + 1 for i in net.backbone.stages.last_blocks] if rules.exits else [len(net.blocks)]
        self.segments = [range(*span) for span in pairwise([0, *ends])]
        """Blocks between which samples may leave: the stages, or all of them."""

    def __call__(self, g: Graph) -> Values:
        """Write everything from the graph input `image` to the outputs; returns their names."""
        net = self.net
        emitter = emit_router(net.router) if net.router is not None else None
        readout = emitter.start(g, "image") if emitter else None
        decided = self.decide(g, readout) if readout else {}
        left = self.form.fill(g, "allowance", "image", 1) if self.rules.bounded else ""
        return self._from(0, _Hand(g, emit_layers(g, net.backbone.stem, "image"), None, left, decided), emitter)

    def _from(self, segment: int, hand: _Hand, emitter: RouterEmitter | None) -> Values:
        """The outputs of the samples in hand from this segment on."""
        g, blocks = hand.g, self.segments[segment]
        own = self._run(blocks, hand, emitter)
        pooled = self._pooled(hand)
        if segment == len(self.segments) - 1:
            found = {"logits": emit_layers(g, self.net.backbone.head, pooled)}
            if self.rules.exits:
                found["exit_stage"] = self.form.fill(g, g.constant([[segment]], np.int64), pooled, 1)
        else:
            found = self._part(segment, hand, emitter)
        for name, columns in own.items():
            found[name] = _join(g, [columns, found[name]] if name in found else [columns])
        return found

    def _run(self, blocks: Sequence[int], hand: _Hand, emitter: RouterEmitter | None) -> Values:
        """Write some blocks; returns their columns of `decisions` and `router_logits`."""
        g, net = hand.g, self.net
        kind = np.bool_ if self.decide.binary else np.int64
        decisions, raws = [], []
        for i in blocks:
            if not net.gated[i]:
                hand.x = emit_block(g, net.blocks[i], net.options[i] - 1, hand.x)
                decisions.append(self.form.fill(g, g.constant([[net.options[i] - 1]], kind), hand.x, 1))
            else:
                assert emitter is not None
                if i not in hand.decided:
                    readout = emitter.read(g, i, hand.x, lambda: self._pooled(hand))
                    hand.decided |= self.decide(g, readout)
                decision = hand.decided.pop(i)
                if hand.left:
                    decision, hand.left = afford(g, decision, net.path_cost.blocks[i, : net.options[i]], hand.left)
                emitter.observe(g, i, lambda chosen=decision: chosen.option(g))
                hand.x = self.form.choose(g, net.blocks[i], decision, hand.x)
                if decision.shown:
                    decisions.append(decision.shown)
                if decision.raw:
                    raws.append(decision.raw)
            hand.pooled = None
        found = {"decisions": g.add("Cast", _join(g, decisions), to=TensorProto.INT64)}
        if raws:
            found["router_logits"] = _join(g, raws)
        return found

    def _part(self, stage: int, hand: _Hand, emitter: RouterEmitter | None) -> Values:
        """Samples of which the stage's head is sure enough leave with its logits, the others go on."""
        g, pooled = hand.g, self._pooled(hand)
        logits = self._stage_logits(g, stage, pooled)
        confidence = g.add("ReduceMax", g.add("Softmax", logits, axis=1), axes=[1], keepdims=1)
        stay = g.add("Less", confidence, "exit_confidence")
        later = range(self.segments[stage].stop, len(self.net.blocks))
        gone = {"logits": logits}
        gone["exit_stage"] = self.form.fill(g, g.constant([[stage]], np.int64), stay, 1)
        gone["decisions"] = self.form.fill(g, g.constant([[UNREACHED] * len(later)], np.int64), stay, len(later))
        width = sum(self.net.options[i] for i in later if self.net.gated[i])
        if self.raw and width:
            gone["router_logits"] = self.form.fill(g, g.constant(np.zeros((1, width))), stay, width)

        def go_on(graph: Graph, take: Take) -> Values:
            if emitter is not None:
                emitter.keep(graph, take)
            return self._from(stage + 1, hand.of(graph, take), emitter)

        return self.form.part(g, stay, gone, go_on)

    def _stage_logits(self, g: Graph, stage: int, pooled: str) -> str:
        """A stage's head; its aligner and classifier are one linear map."""
        heads = self.net.stage_heads
        assert heads is not None, "early exit needs stage heads"
        aligner, classifier = heads.aligners[stage], heads.classifiers[stage]
        weight, bias = folded(classifier, torch.nn.Identity())  # type: ignore[arg-type]
        if isinstance(aligner, torch.nn.Linear):
            weight = weight @ numbers(aligner.weight)
        return g.add("Gemm", pooled, g.constant(weight.T), g.constant(bias))

    def _pooled(self, hand: _Hand) -> str:
        if hand.pooled is None:
            hand.pooled = emit_layers(hand.g, self.net.backbone.pool, hand.x)
        return hand.pooled


def _join(g: Graph, columns: Sequence[str]) -> str:
    return g.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]
