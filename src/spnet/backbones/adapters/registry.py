"""Which network and block classes are known, by class name, so that nothing is imported to look one up."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from spnet.backbones.adapters.parts import Parts, Split

Cut = Callable[[Any], Parts]
"""Network -> its parts."""

_NETWORKS: dict[str, Cut] = {}
_BLOCKS: dict[str, Split] = {}
F = TypeVar("F")


def qualified(kind: type | str) -> str:
    """`package.module.Class`."""
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def adapts(*kinds: type | str) -> Callable[[F], F]:
    """Register a function (network -> Parts) for network classes."""
    return _registering(_NETWORKS, kinds)


def splits(*kinds: type | str) -> Callable[[F], F]:
    """Register a function (block -> Unit, named Units, or the reason why it always runs) for block classes."""
    return _registering(_BLOCKS, kinds)


def _registering(table: dict[str, Any], kinds: tuple[type | str, ...]) -> Callable[[F], F]:
    def register(function: F) -> F:
        table.update({qualified(kind): function for kind in kinds})
        return function

    return register


def register_adapter(kind: type | str, *, block: Split | None = None, network: Cut | None = None) -> None:
    """Teach the library a class of your own.

    Args:
        kind: the class, or its `package.module.Class`; subclasses are known with it.
        block: for a block's class: block -> `Unit(residual, shortcut, tail)`, a dict of named ones, or a text that says
            why it always runs.
        network: for a network's class: network -> `Parts`. A network without one must call its children in the order
            in which they were registered, as an `nn.Sequential` does, and end in a pool, a flatten and a head.

    Raises:
        ValueError: none or both of `block` and `network` are given.

    Example:
        >>> class Mixer(torch.nn.Module):
        ...     def __init__(self, channels: int) -> None:
        ...         super().__init__()
        ...         self.mix = torch.nn.Conv2d(channels, channels, 3, padding=1)
        ...     def forward(self, x: torch.Tensor) -> torch.Tensor:
        ...         return x + self.mix(x)
        >>> spnet.register_adapter(Mixer, block=lambda block: Unit(block.mix))
    """
    if (block is None) == (network is None):
        raise ValueError("register_adapter takes one of block= and network=.")
    (splits(kind)(block) if block is not None else adapts(kind)(network))


def split_of(module: nn.Module) -> Split | None:
    """How a block is split; None for a class nobody registered."""
    return _nearest(_BLOCKS, module)


def cut_of(model: nn.Module) -> Cut | None:
    """How a network is cut; None for a class nobody registered."""
    return _nearest(_NETWORKS, model)


def _nearest(table: dict[str, Any], module: nn.Module) -> Any:
    return next((table[name] for kind in type(module).__mro__ if (name := qualified(kind)) in table), None)
