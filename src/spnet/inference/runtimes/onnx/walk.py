"""The walk over a network that writes it down as a graph, in the order of `DynamicNetwork.forward`.

Shapes: n samples in hand (B at first, fewer after an early exit), N blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from onnx import TensorProto

from spnet.inference.runtimes.onnx.allowance import afford
from spnet.inference.runtimes.onnx.decide import Decider, Readout
from spnet.inference.runtimes.onnx.decisions import Decision
from spnet.inference.runtimes.onnx.forms import Form, Take, Values, apply
from spnet.inference.runtimes.onnx.graph import Graph
from spnet.inference.runtimes.onnx.linear import Linear, emit, linear
from spnet.inference.runtimes.onnx.parts import Parts
from spnet.network.dynamic import DynamicNetwork
from spnet.network.trace import UNREACHED


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
    state: tuple[str, ...]
    """What the router carries."""
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
            tuple(take(value) for value in self.state),
            self.left and take(self.left),
            {i: decision.of(take) for i, decision in self.decided.items()},
        )


class Walk:
    """Writes a network into a graph.

    Args:
        raw: also put out raw router logits.
    """

    def __init__(self, net: DynamicNetwork, parts: Parts, form: Form, *, raw: bool, rules: Rules) -> None:
        self.net = net
        self.parts = parts
        self.form = form
        self.rules = rules
        self.raw = raw and any(net.gated)
        self.decide = Decider(net, raw=self.raw, apart=rules.exits, scored=rules.bounded)
        ends = net.backbone.stages.last_blocks
        early = net.stage_heads.stages if rules.exits and net.stage_heads is not None else ()
        self.exits = (*early, len(ends) - 1)
        """Stages at whose end samples leave; the last lets all go."""
        self.segments = [range(*span) for span in pairwise([0, *(ends[stage] + 1 for stage in self.exits)])]
        """Blocks between which samples may leave."""

    def __call__(self, g: Graph) -> Values:
        """Write everything from the graph input `image` to the outputs; returns their names."""
        left = self.form.fill(g, "allowance", "image", 1) if self.rules.bounded else ""
        state = tuple(self.parts.begin(g, "image")) if self.parts.begin is not None else ()
        hand = _Hand(g, "", "", state, left, {})
        gated = self.net.gated_indices
        if gated and self._blind(gated[0]):  # a policy network decides from the image alone
            self._decide(gated[0], hand)
        hand.x, hand.pooled = self.parts.stem.one(g, "image"), None
        return self._from(0, hand)

    def _from(self, segment: int, hand: _Hand) -> Values:
        """The outputs of the samples in hand from this segment on."""
        g, blocks = hand.g, self.segments[segment]
        own = self._run(blocks, hand)
        last = segment == len(self.segments) - 1
        if last:
            hand.x = self.parts.neck.one(g, hand.x)
        pooled = self._pooled(blocks.stop, hand)
        if last:
            found = {"logits": self.parts.head.one(g, pooled)}
            if self.rules.exits:
                found["exit_stage"] = self.form.fill(g, g.constant([[self.exits[segment]]], np.int64), pooled, 1)
        else:
            found = self._part(segment, hand)
        for name, columns in own.items():
            found[name] = _join(g, [columns, found[name]] if name in found else [columns])
        return found

    def _run(self, blocks: Sequence[int], hand: _Hand) -> Values:
        """Write some blocks; returns their columns of `decisions` and `router_logits`."""
        g, net = hand.g, self.net
        kind = np.bool_ if self.decide.binary else np.int64
        decisions, raws = [], []
        for i in blocks:
            if not net.gated[i]:
                hand.x = apply(g, self.parts.blocks[i], net.options[i] - 1, hand.x)
                decisions.append(self.form.fill(g, g.constant([[net.options[i] - 1]], kind), hand.x, 1))
            else:
                if i not in hand.decided:
                    self._decide(i, hand)
                decision = hand.decided.pop(i)
                if hand.left:
                    decision, hand.left = afford(g, decision, net.path_cost.blocks[i, : net.options[i]], hand.left)
                observe = self.parts.observes[i]
                if not observe.keeps_the_state:
                    gate = decision.one_hot(g) if observe.reads(0) else ""
                    hand.state = tuple(observe(g, gate, *hand.state))
                hand.x = self.form.choose(g, self.parts.blocks[i], decision, hand.x, self.parts.ranks[i])
                if decision.shown:
                    decisions.append(decision.shown)
                if decision.raw:
                    raws.append(decision.raw)
            hand.pooled = None
        found = {"decisions": g.add("Cast", _join(g, decisions), to=TensorProto.INT64)}
        if raws:
            found["router_logits"] = _join(g, raws)
        return found

    def _decide(self, i: int, hand: _Hand) -> None:
        """Run the router at block i, and at the blocks after it where it looks at nothing new by then: what it says
        there is known already. Blocks whose logits are linear in the same hidden values share one matrix."""
        g, gated = hand.g, self.net.gated_indices
        found: list[tuple[int, Linear]] = []
        for j in gated[gated.index(i) :]:
            if j != i and not self._blind(j):
                break
            step = self.parts.steps[j]
            pooled = self._pooled(j, hand) if step.reads(1) else ""
            logits, *state = step(g, hand.x, pooled, *hand.state)
            hand.state = tuple(state)
            found.append((j, linear(g, logits, self.net.options[j])))
            if not self.parts.observes[j].keeps_the_state:
                break
        for (hidden, _), group in groupby(found, key=lambda one: (one[1].hidden, self.net.options[one[0]])):
            blocks, maps = zip(*group, strict=True)
            weight, bias = (np.concatenate([getattr(m, name) for m in maps]) for name in ("weight", "bias"))
            hand.decided |= self.decide(g, Readout(blocks, Linear(hidden, weight, bias)))

    def _blind(self, i: int) -> bool:
        """Whether the router decides block i without a look at its features."""
        return not (self.parts.steps[i].reads(0) or self.parts.steps[i].reads(1))

    def _part(self, segment: int, hand: _Hand) -> Values:
        """Samples of which the head at a segment's end is sure enough leave with its logits, the others go on."""
        g, pooled = hand.g, self._pooled(self.segments[segment].stop, hand)
        logits = emit(g, linear(g, self.parts.stage_heads[segment].one(g, pooled), self.net.num_classes))
        confidence = g.add("ReduceMax", g.add("Softmax", logits, axis=1), g.constant([1], np.int64), keepdims=1)
        stay = g.add("Less", confidence, "exit_confidence")
        later = range(self.segments[segment].stop, len(self.net.blocks))
        gone = {"logits": logits}
        gone["exit_stage"] = self.form.fill(g, g.constant([[self.exits[segment]]], np.int64), stay, 1)
        gone["decisions"] = self.form.fill(g, g.constant([[UNREACHED] * len(later)], np.int64), stay, len(later))
        width = sum(self.net.options[i] for i in later if self.net.gated[i])
        if self.raw and width:
            gone["router_logits"] = self.form.fill(g, g.constant(np.zeros((1, width))), stay, width)

        def go_on(graph: Graph, take: Take) -> Values:
            return self._from(segment + 1, hand.of(graph, take))

        return self.form.part(g, stay, gone, go_on)

    def _pooled(self, i: int, hand: _Hand) -> str:
        """The pooled features before block i; N: after the last."""
        if hand.pooled is None:
            hand.pooled = self.parts.pools[i].one(hand.g, hand.x)
        return hand.pooled


def _join(g: Graph, columns: Sequence[str]) -> str:
    return g.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]
