"""Pooled MLP router: global average pool -> linear -> BN -> ReLU -> dropout -> linear.

The gate of ConvNet-AIG (hidden 16, no dropout; Veit and Belongie, ECCV 2018) and the router of SP-Net (hidden 128,
dropout 0.4; supplement Fig. 3). Its last bias favours running, P(run) = sigmoid(1.9) = 0.87 at the start.

`lookahead = k` makes one MLP decide k gated blocks ahead from the first one's input: k times fewer router calls, which
are what costs time at batch 1. It is ours, not the papers'; k = 1 is theirs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spnet.routers.base import Router, State, drop, gated_blocks

OPENING_BIAS = (0.1, 2.0)
"""Last bias of the skip (and any middle) option and of the full option [convnet-aig, code; spnet, hist]."""


class _MLP(nn.Module):
    def __init__(self, width: int, hidden: int, outputs: int, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.norm = nn.BatchNorm1d(hidden) if batch_norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, outputs)
        self.dropout = dropout

    def forward(self, pooled: Tensor, generator: torch.Generator | None) -> Tensor:
        h = self.norm(self.fc1(pooled)).relu()
        if self.training and self.dropout > 0:
            h = drop(h, self.dropout, generator)
        return self.fc2(h)


class PooledMLP(Router):
    """Args:
    input_widths: channels of each block's input.
    options: number of options of each block.
    gated: which blocks have a router.
    hidden, batch_norm, dropout: of the MLP.
    lookahead: gated blocks decided by one call.
    """

    def __init__(
        self,
        input_widths: Sequence[int],
        options: Sequence[int],
        gated: Sequence[bool],
        *,
        hidden: int,
        batch_norm: bool = True,
        dropout: float = 0.0,
        lookahead: int = 1,
    ) -> None:
        super().__init__()
        self.gated = tuple(gated)
        self.options = tuple(options)
        blocks = gated_blocks(gated)
        self.groups = [blocks[start : start + lookahead] for start in range(0, len(blocks), lookahead)]
        """Blocks decided together; the first one's input is what is read."""
        self.mlps = nn.ModuleDict()
        macs = [0] * len(self.gated)
        for group in self.groups:
            outputs = sum(options[i] for i in group)
            width = input_widths[group[0]]
            mlp = _MLP(width, hidden, outputs, batch_norm, dropout)
            nn.init.normal_(mlp.fc2.weight, std=0.001)
            bias = [OPENING_BIAS[k == options[i] - 1] for i in group for k in range(options[i])]
            with torch.no_grad():
                mlp.fc2.bias.copy_(torch.tensor(bias))
            self.mlps[str(group[0])] = mlp
            macs[group[0]] = width * hidden + hidden * outputs
        self.macs = tuple(macs)
        self._group_from = {group[0]: group for group in self.groups}

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        if i in self._group_from:
            scores = self.mlps[str(i)](pooled_BC, dropout)
            state = scores.split([self.options[j] for j in self._group_from[i]], dim=1)
        return state[0], state[1:]  # what is left are the logits of the blocks ahead
