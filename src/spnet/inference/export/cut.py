"""A network cut into static graphs, at every decision and, where images may leave early, at every exit.

A step is one graph, or one for each option of a block; whoever runs the steps in their order needs no `If`. What stands
between a block and the next decision (pool, router, stage head) goes into the graph of each of the block's options,
where it is no larger than the block: one call fewer a block.

Shapes: everything is of one image; K options of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, ValueInfoProto, helper, numpy_helper

from spnet.errors import UserError
from spnet.inference.runtimes.onnx.decide import Decider, Readout
from spnet.inference.runtimes.onnx.decisions import Decision
from spnet.inference.runtimes.onnx.forms import Single, Values, apply
from spnet.inference.runtimes.onnx.graph import Graph, float_value, model_of, values_read
from spnet.inference.runtimes.onnx.linear import emit
from spnet.inference.runtimes.onnx.parts import take_apart
from spnet.inference.runtimes.onnx.walk import Rules, Walk
from spnet.network.dynamic import DynamicNetwork

FEATURES, SCORES, LOGITS = "x", "scores", "logits"
"""What a runner calls the features in hand, the router's raw scores, and the class logits."""


@dataclass(frozen=True)
class Piece:
    """One static graph.

    Attributes:
        model: None where there is nothing to compute.
        inputs, outputs: what the runner calls the graph's inputs and outputs, in their order.
        constants: values that are known beforehand, such as the gate that a router is told: they need no graph.
    """

    model: ModelProto | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: dict[str, np.ndarray]
    macs: int


@dataclass(frozen=True)
class Step:
    """What runs next.

    Attributes:
        options: one piece; of a block one for each option.
        block: whose option says which piece runs; None: the only one.
        decides: blocks whose `SCORES` are known now, K for each.
        exit: the stage at whose end an image may leave with the `LOGITS`.
    """

    options: tuple[Piece, ...]
    block: int | None = None
    decides: tuple[int, ...] = ()
    exit: int | None = None


def cut(net: DynamicNetwork, *, exits: bool = False) -> list[Step]:
    """All steps, in order.

    Raises:
        UserError: a part has no ONNX form, or none of a fixed shape.
    """
    walk = _Cutting(net, exits)
    walk(walk.root)
    return list(_Writing(net, _fused(walk.drafts), walk.names).steps())


@dataclass
class _Draft:
    """A step whose graphs know their values by the names of the whole network."""

    graphs: list[Graph]
    macs: list[int]
    block: int | None = None
    decides: tuple[int, ...] = ()
    exit: int | None = None
    told: tuple[str, ...] = ()
    """Values that the runner itself reads."""
    hand: tuple[str, ...] = ()
    """Values that later steps may read."""


class _Scores(Decider):
    """Leaves the decision to the runner: only scores are written."""

    def __init__(self, net: DynamicNetwork) -> None:
        super().__init__(net, raw=False, apart=False, scored=False)
        self.found: list[tuple[tuple[int, ...], str]] = []

    def __call__(self, g: Graph, readout: Readout) -> dict[int, Decision]:
        self.found.append((readout.blocks, emit(g, readout.map)))
        return {i: Decision(self.net.options[i], "", False) for i in readout.blocks}


class _Cutting(Walk):
    """The walk over the network that starts a new graph at each decision and exit."""

    def __init__(self, net: DynamicNetwork, exits: bool) -> None:
        super().__init__(net, take_apart(net, heads=exits), Single(), raw=False, rules=Rules(exits=exits))
        self.decide = self.scores = _Scores(net)
        self.root = Graph()
        self.drafts: list[_Draft] = []
        self.names: dict[str, str] = {"image": "image"}
        """What the runner calls a value, where that is not its own name."""
        self.routers = net.router.macs if net.router is not None else (0,) * len(net.blocks)
        self.macs = net.backbone.stem_macs + (net.router.start_macs if net.router is not None else 0)

    def _from(self, segment: int, hand: Any) -> Values:
        for i in self.segments[segment]:
            if self.net.gated[i]:
                if i not in hand.decided:
                    self._decide(i, hand)
                del hand.decided[i]
                self._close(hand)
                self._choose(i, hand)
            else:
                option = self.net.options[i] - 1
                hand.x = apply(hand.g, self.parts.blocks[i], option, hand.x)
                self.macs += self.net.blocks[i].macs[option] + self.routers[i]
            hand.pooled = None
        end = self.segments[segment].stop
        if segment == len(self.segments) - 1:
            hand.x = self.parts.neck.one(hand.g, hand.x)
            self._close(hand, self.parts.head.one(hand.g, self._pooled(end, hand)), self.net.backbone.head_macs)
            return {}
        stage = self.exits[segment]
        assert self.net.stage_heads is not None
        logits = self.parts.stage_heads[segment].one(hand.g, self._pooled(end, hand))
        self._close(hand, logits, self.net.stage_heads.macs[stage], stage)
        hand.pooled = None
        return self._from(segment + 1, hand)

    def _close(self, hand: Any, logits: str = "", macs: int = 0, exit: int | None = None) -> None:
        """The graph in hand becomes a step; the walk goes on in a new one."""
        g, found = hand.g, self.scores.found
        told = []
        if logits:
            told.append(self._called(g, logits, LOGITS))
        if found:
            names = [name for _, name in found]
            told.append(self._called(g, g.add("Concat", *names, axis=1) if len(names) > 1 else names[0], SCORES))
        hand.state = tuple(g.add("Identity", name) if name == hand.x else name for name in hand.state)
        self.names[hand.x] = FEATURES
        decides = tuple(i for blocks, _ in found for i in blocks)
        if g.nodes or self.macs or macs:
            hand_on = (hand.x, *hand.state)
            self.drafts.append(_Draft([g], [self.macs + macs], None, decides, exit, tuple(told), hand_on))
        self.scores.found, self.macs, hand.g = [], 0, Graph(self.root)

    def _called(self, g: Graph, value: str, name: str) -> str:
        """A value of its own for the runner to read."""
        made = g.add("Identity", value)
        self.names[made] = name
        return made

    def _choose(self, i: int, hand: Any) -> None:
        """One graph for each option of block i; all make the same values."""
        observe = self.parts.observes[i]
        x = self.root.name("features")
        state = hand.state if observe.keeps_the_state else tuple(self.root.name("state") for _ in observe.part.outputs)
        graphs = []
        for k in range(self.net.options[i]):
            g = Graph(self.root)
            made = [(apply(g, self.parts.blocks[i], k, hand.x), x)]
            if not observe.keeps_the_state:
                gate = g.constant(np.eye(self.net.options[i])[k : k + 1]) if observe.reads(0) else ""
                made += zip(observe(g, gate, *hand.state), state, strict=True)
            g.nodes += [helper.make_node("Identity", [value], [name]) for value, name in made]
            graphs.append(g)
        macs = [macs + self.routers[i] for macs in self.net.blocks[i].macs]
        self.drafts.append(_Draft(graphs, macs, i, hand=(x, *state)))
        hand.x, hand.state = x, state
        self.names[x] = FEATURES


def _fused(drafts: Sequence[_Draft]) -> list[_Draft]:
    """What follows a block and is no larger goes into each of its options."""
    kept: list[_Draft] = []
    for draft in drafts:
        before = kept[-1] if kept else None
        loose = before is not None and before.block is not None and not before.told
        if before is None or not loose or draft.block is not None or _size(draft) > _size(before):
            kept.append(draft)
            continue
        (tail,) = draft.graphs
        for g in before.graphs:
            g.nodes += tail.nodes
            g.initializers += tail.initializers
            g.descriptions += tail.descriptions
        macs = [macs + draft.macs[0] for macs in before.macs]
        kept[-1] = replace(draft, graphs=before.graphs, block=before.block, macs=macs)
    return kept


def _size(draft: _Draft) -> int:
    """Bytes of the largest graph, without what nobody reads any more."""
    made = [float_value(name) for name in (*draft.told, *draft.hand)]
    return max(g.finish("piece", [], made).ByteSize() for g in draft.graphs)


@dataclass
class _Writing:
    """Graphs become models: which values pass from one to another, and their shapes."""

    net: DynamicNetwork
    drafts: list[_Draft]
    names: dict[str, str]
    known: dict[str, ValueInfoProto] = field(default_factory=dict)
    """Inputs and outputs so far, with their shapes."""

    def steps(self) -> Iterator[Step]:
        self.known["image"] = float_value("image", (1, *self.net.input_shape))
        self.constants = {t.name: t for draft in self.drafts for g in draft.graphs for t in g.initializers}
        wanted = [set(draft.told) for draft in self.drafts]
        for n in reversed(range(1, len(self.drafts))):  # what later steps read, earlier ones must put out
            own = {value for g in self.drafts[n].graphs for node in g.nodes for value in values_read(node)}
            wanted[n - 1] |= wanted[n] - set(self.drafts[n].told) | own
        for draft, values in zip(self.drafts, wanted, strict=True):
            pieces = tuple(self._piece(g, values, macs) for g, macs in zip(draft.graphs, draft.macs, strict=True))
            yield Step(pieces, draft.block, draft.decides, draft.exit)

    def _piece(self, g: Graph, wanted: set[str], macs: int) -> Piece:
        made_here = [value for node in g.nodes for value in node.output if value in wanted]
        fixed = {value: found for value in made_here if (found := self._constant(g, value)) is not None}
        for value, found in fixed.items():
            self.known[value] = float_value(value, found.shape)
        constants = {self.names.get(value, value): found for value, found in fixed.items()}
        outputs = [value for value in made_here if value not in fixed and not self._stays(g, value)]
        graph = g.finish("piece", [], [float_value(name) for name in outputs])
        if not outputs:
            return Piece(None, (), (), constants, macs)
        made = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
        read = dict.fromkeys(value for node in graph.node for value in values_read(node) if value not in made)
        graph.initializer.extend(self.constants[name] for name in read if name in self.constants)
        inputs = [name for name in read if name not in self.constants]
        graph.input.extend(self.known[name] for name in inputs)
        model = self._shaped(graph)
        return Piece(model, self._called(inputs), self._called(outputs), constants, macs)

    def _called(self, values: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.names.get(name, name) for name in values)

    def _source(self, g: Graph, value: str) -> str:
        """What a value is another name of."""
        while (node := g.producer(value)) is not None and node.op_type == "Identity":
            value = node.input[0]
        return value

    def _constant(self, g: Graph, value: str) -> np.ndarray | None:
        tensor = self.constants.get(self._source(g, value))
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _stays(self, g: Graph, value: str) -> bool:
        """Whether the runner has this value already, under the same name: features past a block that is skipped."""
        source = self._source(g, value)
        return source in self.known and self.names.get(source, source) == self.names.get(value, value)

    def _shaped(self, graph: GraphProto) -> ModelProto:
        model = model_of(graph)
        found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        for info, shaped in zip(model.graph.output, found.graph.output, strict=True):
            dims = shaped.type.tensor_type.shape.dim
            if not dims or not all(dim.HasField("dim_value") for dim in dims):
                raise UserError(
                    f"{self.net.backbone.name} has a part whose shape is not fixed: stages need static graphs."
                )
            info.CopyFrom(shaped)
            self.known[info.name] = info
        onnx.checker.check_model(model, full_check=True)
        return model
