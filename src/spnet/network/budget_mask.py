"""A bound on what one sample may cost: options it can no longer afford are not on offer.

The cheapest path is paid for in advance (stem, heads, every router, the least option of every block), so that the rest
of the network can be paid for whatever was decided before. A block whose next option would pass the bound takes the
best option that does not; when nothing is left, that is its cheapest.

Shapes: B samples, K options of the block, N blocks.
"""

from typing import Protocol

import torch
from torch import Tensor

from spnet.network.cost import PathCost


class Limit(Protocol):
    """What the loop over blocks asks before and after each decision."""

    def offer(self, i: int, logits_BK: Tensor) -> Tensor:
        """Logits of block i with -inf at the options a sample cannot afford."""
        ...

    def pay(self, i: int, gate_BK: Tensor) -> None:
        """Book the options of block i that were drawn."""
        ...

    def keep(self, stay_B: Tensor) -> None:
        """The other samples have left the network."""
        ...


class Unlimited:
    """Every option on offer."""

    def offer(self, i: int, logits_BK: Tensor) -> Tensor:
        return logits_BK

    def pay(self, i: int, gate_BK: Tensor) -> None: ...

    def keep(self, stay_B: Tensor) -> None: ...


class Allowance:
    """What each sample may still spend above the cheapest path.

    Args:
        left_B: integers, multiply-adds.
        table_NK: integers, multiply-adds of each block's options; rows of fewer options are padded.
    """

    def __init__(self, left_B: Tensor, table_NK: Tensor) -> None:
        self.left_B = left_B
        self.extra_NK = table_NK - table_NK[:, :1]

    def offer(self, i: int, logits_BK: Tensor) -> Tensor:
        too_dear_BK = self.extra_NK[i, : logits_BK.shape[1]] > self.left_B[:, None]
        return logits_BK.masked_fill(too_dear_BK, float("-inf"))

    def pay(self, i: int, gate_BK: Tensor) -> None:
        self.left_B = self.left_B - self.extra_NK[i, gate_BK.argmax(1)]

    def keep(self, stay_B: Tensor) -> None:
        self.left_B = self.left_B[stay_B]


def limit_to(max_cost: float | None, cost: PathCost, batch: int, *, heads: bool) -> Limit:
    """What bounds the cost of each of `batch` samples to `max_cost`, a share of the static cost; nothing if None.
    Raises as `PathCost.spare`."""
    if max_cost is None:
        return Unlimited()
    spare = cost.spare(max_cost, heads=heads)
    return Allowance(torch.full((batch,), spare, device=cost.blocks.device), cost.blocks)
