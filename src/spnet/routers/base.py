"""What a router is: it reads features and scores the options of each gated block.

One router object serves the whole network, because decisions may share state: an LSTM, the outputs of earlier routers
(RDI-Net), logits decided several blocks ahead, or all decisions taken from the image at once (BlockDrop).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spnet.shard import drawn

State = tuple[Tensor, ...]
"""What a router carries from block to block: tensors whose first dimension is the batch."""


class Router(nn.Module, ABC):
    """Abstract. A kind of router says three things, `begin`, `step` and `told`, as functions of tensors, so that any
    router can be trained, run and exported without another line elsewhere. `start`, `logits` and `observe` are what
    the loop over blocks calls: the same, with the random stream of dropout beside the state.

    Attributes:
        gated: one bool per block; blocks without a router always run in full.
        macs: multiply-adds per sample paid on reaching each block (0 where nothing is computed there).
        start_macs: multiply-adds per sample paid before the first block (a policy network).
    """

    gated: tuple[bool, ...]
    macs: tuple[int, ...]
    start_macs: int = 0

    def begin(self, image: Tensor) -> State:
        """The state before the first block, from a batch of images (B, C, H, W)."""
        return ()

    def forward(self, state: Any, i: int, x: Tensor, pooled_BC: Tensor) -> tuple[Tensor, Any]:
        """`logits`, called as a module, so that hooks on a router fire for every block it decides."""
        return self.logits(state, i, x, pooled_BC)

    @abstractmethod
    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """(B, K_i) logits for gated block i from its input x, pooled to `pooled_BC`; and the new state, which may hold
        more tensors or fewer. `dropout` draws the masks in training mode. At test it must be exportable: no decision
        in Python that depends on a tensor's values."""

    def told(self, state: State, i: int, gate_BK: Tensor) -> State:
        """The state once block i took the options `gate_BK`, one-hot at test; forced decisions are told too."""
        return state

    def start(self, image: Tensor, dropout: torch.Generator | None) -> tuple[State, torch.Generator | None]:
        return self.begin(image), dropout

    def logits(self, state: Any, i: int, x: Tensor, pooled_BC: Tensor) -> tuple[Tensor, Any]:
        tensors, dropout = state
        logits_BK, tensors = self.step(tensors, i, x, pooled_BC, dropout)
        return logits_BK, (tensors, dropout)

    def observe(self, state: Any, i: int, gate_BK: Tensor) -> Any:
        tensors, dropout = state
        return self.told(tensors, i, gate_BK), dropout


def drop(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Dropout whose mask comes from an explicit generator, so that switching another term off changes nothing here."""
    even = drawn(lambda shape: torch.rand(shape, generator=generator, device=x.device), x.shape, generator)
    keep = even >= share
    return x * keep / (1.0 - share)


def gated_blocks(gated: Sequence[bool]) -> list[int]:
    return [i for i, has_router in enumerate(gated) if has_router]
