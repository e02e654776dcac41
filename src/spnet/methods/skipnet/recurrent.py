"""Recurrent router: one LSTM walks along the blocks and remembers what it has seen of this image. SkipNet's RNNGate.

A block's pooled input -> linear C -> 10 (the block's own) -> LSTM 10 -> 10 -> linear 10 -> 1 = z; it runs with
probability sigmoid(z), written as the two logits [0, z]. LSTM and last layer are shared by all blocks: 891 parameters.
Source: SkipNet (Wang et al., ECCV 2018), released CIFAR code.

Shapes: B samples, C channels of a block's input, H = 10 hidden units.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spnet.errors import choose
from spnet.routers.base import Router, State, gated_blocks

HIDDEN = 10
INITS = ("he", "xavier")


class Recurrent(Router):
    """The LSTM starts from zero for every batch of images and carries its state from one gated block to the next, and
    nowhere else. No bias favours running: P(run) starts near 0.5.

    Args:
        input_widths: channels of each block's input.
        gated: which blocks have a router.
        init: `he` (released CIFAR code: embeddings N(0, sqrt(2/H)), last layer N(0, sqrt(2/(H * 1))), the rest as torch
            draws it) or `xavier` (released ImageNet code: all weights Xavier-normal, all biases 0).
    """

    def __init__(self, input_widths: Sequence[int], gated: Sequence[bool], *, init: str = "he") -> None:
        super().__init__()
        self.gated = tuple(gated)
        self.embeddings = nn.ModuleDict({str(i): nn.Linear(input_widths[i], HIDDEN) for i in gated_blocks(gated)})
        self.lstm = nn.LSTMCell(HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, 1)
        if choose("init", init, INITS) == "he":
            for layer in (*self.embeddings.values(), self.last):
                nn.init.normal_(layer.weight, std=math.sqrt(2 / HIDDEN))  # type: ignore[arg-type]
        else:
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_normal_(parameter)
                else:
                    nn.init.zeros_(parameter)
        shared = self.lstm.weight_ih.numel() + self.lstm.weight_hh.numel() + HIDDEN
        self.macs = tuple(input_widths[i] * HIDDEN + shared if has_router else 0 for i, has_router in enumerate(gated))

    @property
    def last_layers(self) -> tuple[nn.Linear, ...]:
        return (self.last,)

    def begin(self, image: Tensor) -> State:
        zeros_BH = image.new_zeros(image.shape[0], HIDDEN)
        return zeros_BH, zeros_BH

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        hidden_BH, cell_BH = self.lstm(self.embeddings[str(i)](pooled_BC), state)
        return F.pad(self.last(hidden_BH), (1, 0)), (hidden_BH, cell_BH)
