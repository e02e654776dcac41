"""Masked execution: compute every option, mix by the gate. What training needs, and the reference for the others."""

from torch import Tensor

from spnet.backbones.base import Block


def masked(block: Block, x: Tensor, gate_BK: Tensor) -> Tensor:
    return block.mix(x, gate_BK)
