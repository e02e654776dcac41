"""Frugality: what the toy method minimises beside cross-entropy."""

from collections.abc import Sequence

import torch
from torch import Tensor


def frugality(gates: Sequence[Tensor]) -> Tensor:
    """Mean share of blocks that run; `gates`: one (B, K) a block, its last column the full option."""
    return torch.stack([gate_BK[:, -1].mean() for gate_BK in gates]).mean()
