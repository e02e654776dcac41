"""Masked execution: compute every option, mix by the gate. What training needs, and the reference for the others."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from spnet.network.block import Block


def masked(block: Block, x: Tensor, gate_BK: Tensor) -> Tensor:
    return block(x, gate_BK)


def whole(block: Block, x: Tensor) -> Tensor:
    """A block without a router: its last option, for every sample."""
    return block(x, block.num_options - 1)


class Dense(NamedTuple):
    """How blocks are computed while training: with a gate, and without one."""

    mix: Callable[[Block, Tensor, Tensor], Tensor] = masked
    whole: Callable[[Block, Tensor], Tensor] = whole
