"""Convolutional router with a memory: a glance at the image, a look at each block's input, the last decision."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spnet.routers import Router, State
from spnet.routers.base import gated_blocks

SEEN = 4
"""Channels of a glance and of a look."""


class Glance(Router):
    """State: the glance (B, SEEN), then the last decision (B, 2).

    Args:
        image: (C, height, width) of what the network sees.
        inputs: (C, height, width) of each block's input.
        gated: which blocks have a router.
    """

    def __init__(self, image: Sequence[int], inputs: Sequence[Sequence[int]], gated: Sequence[bool]) -> None:
        super().__init__()
        self.gated = tuple(gated)
        self.glance = nn.Conv2d(image[0], SEEN, 3, stride=2, padding=1)
        self.looks = nn.ModuleDict(
            {str(i): nn.Conv2d(inputs[i][0], SEEN, 3, stride=2, padding=1) for i in gated_blocks(gated)}
        )
        self.decide = nn.Linear(2 * SEEN + 2, 2)
        self.start_macs = _macs(image)
        read = 2 * (2 * SEEN + 2)
        self.macs = tuple(_macs(shape) + read if has else 0 for shape, has in zip(inputs, gated, strict=True))

    def begin(self, image: Tensor) -> State:
        return self.glance(image).relu().mean((2, 3)), image.new_zeros(image.shape[0], 2)

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        look_BS = self.looks[str(i)](x).relu().amax((2, 3))
        return self.decide(torch.cat([*state, look_BS], 1)), state

    def told(self, state: State, i: int, gate_BK: Tensor) -> State:
        return state[0], gate_BK


def _macs(shape: Sequence[int]) -> int:
    """Of a 3x3 convolution of stride 2 to SEEN channels."""
    channels, height, width = shape
    return 9 * channels * SEEN * -(-height // 2) * -(-width // 2)
