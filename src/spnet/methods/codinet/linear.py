"""Linear router: global average pool -> linear C -> C -> linear C -> options. CoDiNet's gate.

There is no activation between the two layers, so they are one linear map (which would need 34 parameters where C = 16,
not 306). They are kept apart as published: two factors train differently from their product. No opening bias: at the
start about half of the blocks run.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spnet.routers.base import Router, State, gated_blocks


class TwoLinears(Router):
    """Kaiming-normal weights, biases as torch draws them. Deviation: option 0 is *skip*; CoDiNet's index 0 is *run*.

    Args:
        input_widths: channels C of each block's input.
        options: number of options of each block.
        gated: which blocks have a router.
    """

    def __init__(self, input_widths: Sequence[int], options: Sequence[int], gated: Sequence[bool]) -> None:
        super().__init__()
        self.gated = tuple(gated)
        self.gates = nn.ModuleDict()
        macs = [0] * len(self.gated)
        for i in gated_blocks(gated):
            width = input_widths[i]
            first, second = nn.Linear(width, width), nn.Linear(width, options[i])
            for layer in (first, second):
                nn.init.kaiming_normal_(layer.weight)
            self.gates[str(i)] = nn.Sequential(first, second)
            macs[i] = width * width + width * options[i]
        self.macs = tuple(macs)

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        return self.gates[str(i)](pooled_BC), state
