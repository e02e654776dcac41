"""What an adapter says about a network, and the few tools adapters share. Nothing here imports torchvision or timm.

A family file says two things: how a network is cut (`Parts`), and what a block's shortcut, residual and tail are
(`Unit`). The modules named are the network's own, so that weights are shared.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Unit:
    """A residual block in parts: tail(shortcut(x) + residual(x)).

    Attributes:
        residual: modules run one after another; only what a skip saves.
        shortcut: None for the identity.
        tail: the activation after the sum; None for none.
    """

    residual: Sequence[nn.Module]
    shortcut: nn.Module | None = None
    tail: nn.Module | None = None


Split = Callable[[Any], "Unit | dict[str, Unit] | str"]
"""Block -> its parts; several named ones where it is several units (attention, MLP); or, where it always runs, why."""


@dataclass
class Parts:
    """A network, cut. Every list is run in order; together they are the network's own forward pass.

    Attributes:
        stem: image -> features.
        body: (name, module) of each block, and of whatever lies between blocks.
        pool: features of any block -> (B, C): what routers read too.
        head: pooled features -> logits; its last module is the classifier.
        neck: between the last block and the pool.
    """

    stem: list[nn.Module]
    body: list[tuple[str, nn.Module]]
    pool: nn.Module
    head: list[nn.Module]
    neck: list[nn.Module] = field(default_factory=list)


class GlobalMean(nn.Module):
    """(B, C, H, W) -> (B, C), or (B, tokens, C) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.dim() == 4 else x.mean(1)


class Unpool(nn.Module):
    """(B, C) -> (B, C, 1, 1), for heads that begin with a norm or convolution over images."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, None, None]


def attributes(module: nn.Module, names: str) -> list[nn.Module]:
    """The submodules of these names, in order; those that are None are left out."""
    return [part for name in names.split() if (part := getattr(module, name)) is not None]


def children(module: nn.Module, *names: str) -> list[tuple[str, nn.Module]]:
    """(dotted name, child) of all children of the submodules `names`, in order."""
    return [
        (f"{name}.{inner}", child) for name in names for inner, child in module.get_submodule(name).named_children()
    ]


def flat(*modules: nn.Module) -> list[nn.Module]:
    """The modules with every plain `Sequential` taken apart."""
    found: list[nn.Module] = []
    for module in modules:
        found += flat(*module) if type(module) is nn.Sequential else [module]
    return found


def pooled(pool: nn.Module) -> nn.Sequential:
    """A global pool that leaves (B, C, 1, 1), with the flattening after it."""
    return nn.Sequential(pool, nn.Flatten(1))


def changed(module: nn.Module, **attributes: Any) -> nn.Module:
    """The same module, weights shared, with some attributes or submodules replaced: its own forward without a part."""
    twin = copy.copy(module)
    own = {key: copy.copy(value) if isinstance(value, dict) else value for key, value in vars(module).items()}
    own |= {key: OrderedDict() for key in own if key.endswith("_hooks")}  # a hook on the whole is none on a part
    object.__setattr__(twin, "__dict__", own)
    for name, value in attributes.items():
        setattr(twin, name, value)
    return twin


def out_of_place(tail: nn.Module | None) -> nn.Module | None:
    """An activation that leaves its input alone: where a block is skipped, that input is another block's output."""
    if getattr(tail, "inplace", False):
        tail = copy.copy(tail)
        tail.inplace = False  # type: ignore[union-attr]
    return tail
