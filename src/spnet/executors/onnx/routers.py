"""Routers as ONNX nodes. A router type is one class here.

Every router ends in a linear layer, so an emitter hands over its last hidden values and that layer's weights; the network
turns them into decisions (folding two options into one difference, adding the threshold). What comes before is the emitter's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from spnet.errors import UserError
from spnet.executors.onnx.graph import Graph
from spnet.executors.onnx.layers import emit_linear, emit_relu, numbers
from spnet.routers.base import Router
from spnet.routers.pooled_mlp import PooledMLP


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
        """Called before gated block i when its decision is not known yet; `pooled()` emits the pooled x once, when asked."""

    def observe(self, g: Graph, i: int, option: Callable[[], str]) -> None:
        """Told the option of block i after it is decided; `option()` emits it as (B, 1) int64, when asked."""


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
        raise UserError(f"no ONNX form for routers of type {type(router).__name__}: use executor 'branching' or 'gathered'.")
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
