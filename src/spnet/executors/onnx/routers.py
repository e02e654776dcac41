"""Routers as ONNX nodes. A router type is one class here.

Every router ends in a linear layer, so an emitter hands over its last hidden values and that layer's weights; the
network turns them into decisions (folding two options into one difference, adding the threshold). What comes before
is the emitter's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from onnx import TensorProto
from torch import nn

from spnet.errors import UserError
from spnet.executors.onnx.blocks import emit_block
from spnet.executors.onnx.graph import Graph
from spnet.executors.onnx.layers import emit_layers, emit_linear, emit_relu, numbers
from spnet.routers.base import Router
from spnet.routers.feed_forward import FeedForward
from spnet.routers.linear import TwoLinears
from spnet.routers.policy_network import PolicyNetwork
from spnet.routers.pooled_mlp import PooledMLP
from spnet.routers.recurrent import Recurrent
from spnet.routers.relational import MIX, Relational


@dataclass(frozen=True)
class Readout:
    """The option logits of some blocks, in block order: hidden @ weight.T + bias.

    Attributes:
        blocks: the gated blocks decided; consecutive among the gated ones.
        hidden: name of a (B, H) value.
        weight, bias: (sum of K_i, H) and (sum of K_i,), float64.
    """

    blocks: tuple[int, ...]
    hidden: str
    weight: np.ndarray
    bias: np.ndarray


class RouterEmitter(ABC):
    """Abstract. Called in the order of `DynamicNetwork.forward`; keeps the names of its state between calls."""

    def start(self, g: Graph, image: str) -> Readout | None:
        """What is decided from the image before the stem (a policy network), if anything."""
        return None

    @abstractmethod
    def read(self, g: Graph, i: int, x: str, pooled: Callable[[], str]) -> Readout:
        """Called before gated block i when its decision is not known yet; `pooled()` emits the pooled x once, when
        asked."""

    def observe(self, g: Graph, i: int, option: Callable[[], str]) -> None:
        """Told the option of block i after it is decided; `option()` emits it as (B, 1) int64, when asked."""
        return None  # most routers need not know

    def keep(self, g: Graph, take: Callable[[str], str]) -> None:
        """Samples have left the network: `take` picks the others' rows from a value."""
        return None  # most routers have no state


_ROUTERS: dict[type, Callable[[Any], RouterEmitter]] = {}
E = TypeVar("E", bound=Callable[[Any], RouterEmitter])


def emits_router(kind: type) -> Callable[[E], E]:
    """Register the emitter of a router type: called with the router."""

    def register(emitter: E) -> E:
        _ROUTERS[kind] = emitter
        return emitter

    return register


def emit_router(router: Router) -> RouterEmitter:
    """The emitter of a router; `UserError` for a type without an ONNX form."""
    if type(router) not in _ROUTERS:
        raise UserError(
            f"no ONNX form for routers of type {type(router).__name__}: use executor 'branching' or 'gathered'."
        )
    return _ROUTERS[type(router)](router)


@emits_router(PooledMLP)
class _PooledMLP(RouterEmitter):
    def __init__(self, router: PooledMLP) -> None:
        self.router = router

    def read(self, g: Graph, i: int, x: str, pooled: Callable[[], str]) -> Readout:
        group = next(group for group in self.router.groups if group[0] == i)
        mlp: Any = self.router.mlps[str(i)]
        hidden = emit_relu(g, emit_linear(g, mlp.fc1, pooled(), mlp.norm))
        return Readout(tuple(group), hidden, numbers(mlp.fc2.weight), numbers(mlp.fc2.bias))


@emits_router(TwoLinears)
class _TwoLinears(RouterEmitter):
    """Two linear layers in a row are one."""

    def __init__(self, router: TwoLinears) -> None:
        self.router = router

    def read(self, g: Graph, i: int, x: str, pooled: Callable[[], str]) -> Readout:
        first, second = _linears(self.router.gates[str(i)])
        weight, bias = numbers(second.weight), numbers(second.bias)
        return Readout((i,), pooled(), weight @ numbers(first.weight), weight @ numbers(first.bias) + bias)


@emits_router(FeedForward)
class _FeedForward(RouterEmitter):
    def __init__(self, router: FeedForward) -> None:
        self.router = router

    def read(self, g: Graph, i: int, x: str, pooled: Callable[[], str]) -> Readout:
        gate = self.router.gates[str(i)]
        layers = list(gate.children())[:-1]
        last = _linears(gate)[0]
        return Readout((i,), emit_layers(g, nn.Sequential(*layers), x), numbers(last.weight), numbers(last.bias))


@emits_router(Recurrent)
class _Recurrent(RouterEmitter):
    """The cell spelt out, the block's embedding folded into its input weights. Not ONNX's LSTM, on which onnxruntime
    1.32 ends the whole process when nobody is left in the network (no rows). Gates lie in the order i, f, o, g, so
    that one sigmoid serves three."""

    def __init__(self, router: Recurrent) -> None:
        self.router = router
        self.hidden = self.cell = ""

    def read(self, g: Graph, i: int, x: str, pooled: Callable[[], str]) -> Readout:
        lstm, embed = self.router.lstm, _linears(self.router.embeddings[str(i)])[0]
        size = lstm.hidden_size
        weight = _gates(numbers(lstm.weight_ih) @ numbers(embed.weight))
        bias = _gates(numbers(lstm.weight_ih) @ numbers(embed.bias) + numbers(lstm.bias_ih) + numbers(lstm.bias_hh))
        gates = g.add("Gemm", pooled(), g.constant(weight.T), g.constant(bias))
        if self.hidden:
            gates = g.add("Gemm", self.hidden, g.constant(_gates(numbers(lstm.weight_hh)).T), gates)
        opened, candidate = g.add_many("Split", 2, gates, g.constant([3 * size, size], np.int64), axis=1)
        let_in, keep, put_out = g.add_many(
            "Split", 3, g.add("Sigmoid", opened), g.constant([size] * 3, np.int64), axis=1
        )
        added = g.add("Mul", let_in, g.add("Tanh", candidate))
        self.cell = g.add("Add", g.add("Mul", keep, self.cell), added) if self.cell else added
        self.hidden = g.add("Mul", put_out, g.add("Tanh", self.cell))
        last = self.router.last
        return Readout((i,), self.hidden, *_run_logit(numbers(last.weight), numbers(last.bias)))

    def keep(self, g: Graph, take: Callable[[str], str]) -> None:
        self.hidden, self.cell = (value and take(value) for value in (self.hidden, self.cell))


@emits_router(Relational)
class _Relational(RouterEmitter):
    """Graph layer and last layer are one linear map of the mixed nodes."""

    def __init__(self, router: Relational) -> None:
        self.router = router
        self.earlier: list[str] = []
        self.own = ""

    def read(self, g: Graph, i: int, x: str, pooled: Callable[[], str]) -> Readout:
        node: Any = self.router.nodes[str(i)]
        hidden = emit_relu(g, emit_linear(g, node.fc1, pooled(), node.norm))
        self.own = emit_linear(g, node.fc2, hidden, nn.Identity())
        handed = self.earlier or [self.own]
        mixed = self.own
        for share, value in ((MIX[0], handed[0]), (MIX[1], handed[-1])):
            mixed = g.add("Add", mixed, g.add("Mul", value, g.constant(share)))
        last = numbers(node.fc3.weight)
        return Readout((i,), mixed, last @ numbers(node.graph.weight), numbers(node.fc3.bias))

    def observe(self, g: Graph, i: int, option: Callable[[], str]) -> None:
        handed = self.own
        if self.router.handed_on == "decisions":
            node: Any = self.router.nodes[str(i)]
            same = g.add("Equal", option(), g.constant([range(node.fc3.out_features)], np.int64))
            handed = g.add("Cast", same, to=TensorProto.FLOAT)
        self.earlier = [*self.earlier, handed][-2:]

    def keep(self, g: Graph, take: Callable[[str], str]) -> None:
        self.earlier = [take(value) for value in self.earlier]


@emits_router(PolicyNetwork)
class _PolicyNetwork(RouterEmitter):
    def __init__(self, router: PolicyNetwork) -> None:
        self.router = router

    def start(self, g: Graph, image: str) -> Readout:
        trunk = self.router.trunk
        x = emit_layers(g, trunk.stem, emit_layers(g, self.router.pool, image))
        for block in trunk.blocks:
            x = emit_block(g, block, block.num_options - 1, x)  # type: ignore[arg-type]
        head = _linears(trunk.head)[0]
        weight, bias = _run_logit(numbers(head.weight), numbers(head.bias))
        return Readout(tuple(self.router.column), emit_layers(g, trunk.pool, x), weight, bias)

    def read(self, g: Graph, i: int, x: str, pooled: Callable[[], str]) -> Readout:
        raise AssertionError("a policy network decides every block at the start")


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _gates(values: np.ndarray) -> np.ndarray:
    """Rows of an LSTM from torch's order of gates, i, f, g, o, to i, f, o, g."""
    i, f, candidate, o = np.split(values, 4)
    return np.concatenate([i, f, o, candidate])


def _run_logit(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of logits z (n of them) -> weights of [0, z] for each."""
    both, biases = np.zeros((2 * len(weight), weight.shape[1])), np.zeros(2 * len(bias))
    both[1::2], biases[1::2] = weight, bias
    return both, biases
