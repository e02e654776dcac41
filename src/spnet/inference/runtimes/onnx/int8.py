"""A dynamic network in 8 bits: quantised once, as a whole, and cut into pieces that every form of graph is made of.

The sheet is the static network with the other options of each block beside the full one. onnxruntime's tools put it in
QDQ form; features then travel from piece to piece as bytes. Where a block may be skipped, the bytes before and after it
mean the same, so that a skip costs nothing: all features from one change of shape to the next share a scale. Routers,
and what they and the heads of stages read, stay fp32.

Shapes: N blocks, K options of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from spnet.data import Source
from spnet.errors import UserError
from spnet.inference.runtimes.onnx.forms import apply
from spnet.inference.runtimes.onnx.graph import Graph, float_value, model_of, renamed, values_read
from spnet.inference.runtimes.onnx.library import open_session
from spnet.inference.runtimes.onnx.parts import Parts, Piece, take_apart
from spnet.inference.runtimes.onnx.quantise import (
    CHUNK,
    calibration_images,
    check_calibration,
    needs_seven_bits,
    quantised,
)
from spnet.inference.runtimes.protocol import Images
from spnet.network.dynamic import DynamicNetwork


@dataclass(frozen=True)
class Quantisation:
    """A network's int8 weights and scales.

    Attributes:
        sheet: the QDQ model, an ONNX file. Outputs: the logits of the full path, and the features between pieces.
        bits: of the weights: 7 are right on every processor, 8 take one with VNNI.
        calibrated_on: images that set the scales.
    """

    sheet: bytes
    bits: int
    calibrated_on: int
    _made: dict[tuple[DynamicNetwork, bool], Parts] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, net: DynamicNetwork, images: Images | Source) -> "Quantisation":
        """Calibrate on images (M, C, H, W), uint8 or normalised float, which run every block; on a few hundred of them
        where there are more.

        Raises:
            UserError: no images, NaN among them, or a network that int8 does not suit.
        """
        chosen = calibration_images(net, images)
        check_calibration(chosen)
        parts = take_apart(net)
        sheet = _Sheet(net, parts)
        bits = 7 if needs_seven_bits() else 8
        made = quantised(sheet.model, chosen, seven_bits=bits == 7, scales=sheet.ranges(chosen))
        found = cls(made.SerializeToString(), bits, len(chosen))
        found._made[net, False] = found._pieces(net, parts)  # refuses what cannot be cut
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Pieces stay behind when it is pickled or copied: they belong to a network, and are cut again."""
        return Quantisation, (self.sheet, self.bits, self.calibrated_on)

    def parts(self, net: DynamicNetwork, *, heads: bool = False) -> Parts:
        """The network's pieces in int8, for `dynamic_model` and `path_model`. Features between them are bytes. It is
        taken apart at the first call, for all graphs that are made of it."""
        if (net, heads) not in self._made:
            self._made[net, heads] = self._pieces(net, take_apart(net, heads=heads))
        return self._made[net, heads]

    def _pieces(self, net: DynamicNetwork, parts: Parts) -> Parts:
        sheet, cuts = _Sheet(net, parts), _Cuts(onnx.load_from_string(self.sheet).graph)
        x, after = sheet.features, sheet.neck
        blocks = [
            {k: cuts.between(x[i], sheet.options[i, k], piece) for k, piece in options.items()}
            for i, options in enumerate(parts.blocks)
        ]
        return replace(
            parts,
            stem=cuts.between("image", x[0], parts.stem),
            blocks=blocks,
            neck=parts.neck if after == x[-1] else cuts.between(x[-1], after, parts.neck),
            pools=[cuts.reading(value, pool) for value, pool in zip([*x[:-1], after], parts.pools, strict=True)],
            steps={i: cuts.reading(x[i], step) for i, step in parts.steps.items()},
            head=cuts.between(sheet.pooled, "logits", parts.head),
        )

    def static(self) -> bytes:
        """The static network of the sheet, as the tools wrote it: an ONNX file whose only output is `logits`."""
        model = onnx.load_from_string(self.sheet)
        kept = [output for output in model.graph.output if output.name == "logits"]
        nodes = list(_leading_to("logits", (), model.graph))
        read = {name for node in nodes for name in values_read(node)}
        constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
        graph = helper.make_graph(nodes, "spnet", list(model.graph.input), kept, constants)
        made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        return made.SerializeToString()


class _Sheet:
    """The fp32 graph with every option of every block, and the names of its values.

    Attributes:
        features: before each block, and after the last.
        options: what each option makes of the features before its block.
        neck: what is pooled for the head.
    """

    def __init__(self, net: DynamicNetwork, parts: Parts) -> None:
        g, self.parts, self.gated = Graph(), parts, net.gated
        self.features = [parts.stem.one(g, "image")]
        self.options: dict[tuple[int, int], str] = {}
        for i, options in enumerate(parts.blocks):
            before = self.features[-1]
            for k in options:
                self.options[i, k] = apply(g, options, k, before)
            self.features.append(self.options[i, max(options)] if options else before)
        self.neck = parts.neck.one(g, self.features[-1])
        self.pooled = parts.pools[-1].one(g, self.neck)
        logits = parts.head.one(g, self.pooled)
        g.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
        self.values = list(dict.fromkeys([*self.features, *self.options.values(), self.neck]))
        image = float_value("image", ("batch", *net.input_shape))
        outputs = [float_value(name) for name in ("logits", *self.values)]
        self.model = model_of(g.finish("spnet", [image], outputs))

    def ranges(self, images: np.ndarray) -> dict[str, tuple[float, float]]:
        """The least and the largest value of the features, those that share a scale taken together."""
        session = open_session(self.model.SerializeToString())
        found: dict[str, list[float]] = {name: [np.inf, -np.inf] for name in self.values}
        for start in range(0, len(images), CHUNK):
            values = session.run(self.values, {"image": images[start : start + CHUNK]})
            for name, value in zip(self.values, values, strict=True):
                low, high = found[name]
                found[name] = [min(low, float(value.min())), max(high, float(value.max()))]
        for group in self.sharing():
            low, high = min(found[name][0] for name in group), max(found[name][1] for name in group)
            found.update({name: [min(low, 0.0), max(high, 0.0)] for name in group})
        return {name: (low, high) for name, (low, high) in found.items()}

    def sharing(self) -> list[set[str]]:
        """Values that have a scale in common: what a block's options make, and, where one of them is to do nothing,
        what they are made of."""
        groups = [{self.features[0]}]
        for i, options in enumerate(self.parts.blocks):
            made = {self.features[i + 1], *(self.options[i, k] for k in options)}
            if self.gated[i] and 0 not in options:
                groups[-1] |= made
            else:
                groups.append(made)
        return groups


class _Cuts:
    """The QDQ graph of a sheet, cut where features are bytes."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.producers = {output: node for node in graph.node for output in node.output}
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.features = {output.name for output in graph.output} - {"logits"}

    def between(self, source: str, end: str, piece: Piece) -> Piece:
        """What makes a value of another, as bytes where they are features."""
        source, end = self._bytes(source), self._bytes(end)
        return _Cut(piece, list(_leading_to(end, (source,), self.graph)), self.constants, source, end)

    def reading(self, value: str, piece: Piece) -> Piece:
        """A piece in fp32 that reads features."""
        scale, zero = (self.constants[name] for name in self._dequantised(value).input[1:])
        return _Reading(piece, scale, zero)

    def _bytes(self, value: str) -> str:
        return self._dequantised(value).input[0] if value in self.features else value

    def _dequantised(self, value: str) -> NodeProto:
        node = self.producers.get(value)
        if node is None or node.op_type != "DequantizeLinear":
            maker = node.op_type if node is not None else "nothing"
            raise UserError(
                f"int8 needs blocks that end in a convolution or a sum, with a ReLU or without; here in {maker}: "
                "run this network in fp32."
            )
        return node


class _Cut(Piece):
    """Nodes of the sheet in a piece's place."""

    def __init__(
        self, piece: Piece, nodes: Sequence[NodeProto], constants: dict[str, np.ndarray], source: str, end: str
    ) -> None:
        super().__init__(piece.part)
        self.fragment = piece.fragment
        self.nodes = [renamed(node, {}) for node in nodes]  # copies, which keep no sheet in memory
        self.source = source
        self.end = end
        self.constants = {name: constants[name] for node in nodes for name in node.input if name in constants}

    def __call__(self, g: Graph, *inputs: str) -> list[str]:
        names = {self.source: inputs[0]}
        names |= {name: g.constant(array, array.dtype) for name, array in self.constants.items()}
        for node in self.nodes:
            names |= {output: g.name(node.op_type) for output in node.output}
            written = renamed(node, names)
            written.name = g.name(f"node_{node.op_type}")
            g.nodes.append(written)
        return [names[self.end]]


class _Reading(Piece):
    """A piece in fp32 whose first input comes as bytes."""

    def __init__(self, piece: Piece, scale: np.ndarray, zero: np.ndarray) -> None:
        super().__init__(piece.part)
        self.fragment = piece.fragment
        self.piece = piece
        self.scale = scale
        self.zero = zero

    def __call__(self, g: Graph, *inputs: str) -> list[str]:
        x, *others = inputs
        if self.piece.reads(0):
            scale, zero = g.constant(self.scale), g.constant(self.zero, self.zero.dtype)
            x = g.add("DequantizeLinear", x, scale, zero)
        return self.piece(g, x, *others)


def _leading_to(end: str, stop: Sequence[str], graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes that a value depends on, as far back as the values in `stop`, in their order."""
    wanted, nodes = {end}, []
    for node in reversed(graph.node):
        if not wanted.difference(stop).isdisjoint(node.output):
            nodes.append(node)
            wanted.update(values_read(node))
    return reversed(nodes)
