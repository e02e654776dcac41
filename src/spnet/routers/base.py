"""What a router is: it reads features and scores the options of each gated block.

One router object serves the whole network, because decisions may share state: an LSTM, the outputs of earlier routers
(RDI-Net), logits decided several blocks ahead, or all decisions taken from the image at once (BlockDrop).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Router(nn.Module, ABC):
    """Abstract. `state` is a tree (dict, list, tuple) whose tensors have the batch as their first dimension.

    Attributes:
        gated: one bool per block; blocks without a router always run in full.
        macs: multiply-adds per sample paid on reaching each block (0 where nothing is computed there).
        start_macs: multiply-adds per sample paid before the first block (a policy network).
    """

    gated: tuple[bool, ...]
    macs: tuple[int, ...]
    start_macs: int = 0

    @abstractmethod
    def start(self, image: Tensor, dropout: torch.Generator | None) -> Any:
        """State for a batch of images; `dropout` draws the masks in training mode."""

    def forward(self, state: Any, i: int, x: Tensor, pooled_BC: Tensor) -> tuple[Tensor, Any]:
        """`logits`, called as a module, so that hooks on a router fire for every block it decides."""
        return self.logits(state, i, x, pooled_BC)

    @abstractmethod
    def logits(self, state: Any, i: int, x: Tensor, pooled_BC: Tensor) -> tuple[Tensor, Any]:
        """(B, K_i) logits for gated block i from its input x, pooled to `pooled_BC`; and the new state."""

    def observe(self, state: Any, i: int, gate_BK: Tensor) -> Any:
        """Tell the router which option block i took; forced decisions are told too."""
        return state


def drop(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Dropout whose mask comes from an explicit generator, so that switching another term off changes nothing here."""
    keep = torch.rand(x.shape, generator=generator, device=x.device) >= share
    return x * keep / (1.0 - share)


def gated_blocks(gated: Sequence[bool]) -> list[int]:
    return [i for i, has_router in enumerate(gated) if has_router]
