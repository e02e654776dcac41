"""Policy network: a small network looks at the image once and scores all blocks before the first one runs. BlockDrop.

A block is kept with probability p = sigmoid(z), written as the two logits [0, z]; all are known in `start`, so an
executor may plan the whole path. Nothing favours keeping: p starts near 0.5. Source: BlockDrop (Wu et al., CVPR 2018),
released code; its value head, built but never used, is left out.

Shapes: B samples, K blocks.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spnet.backbones.base import Backbone
from spnet.routers.base import Router, State, gated_blocks


class PolicyNetwork(Router):
    """Args:
    trunk: a plain network with one class per gated block of the network it steers, built for the pooled image.
    gated: which blocks of that network it steers; as many as the trunk has classes, all of them, when left out.
    image_pool: the image is average-pooled by this first (2 in the released ImageNet code).
    """

    def __init__(self, trunk: Backbone, gated: Sequence[bool] | None = None, *, image_pool: int = 1) -> None:
        super().__init__()
        self.trunk = trunk
        self.gated = tuple(gated) if gated is not None else (True,) * trunk.num_classes
        self.column = {i: column for column, i in enumerate(gated_blocks(self.gated))}
        """Which class of the trunk a block is."""
        self.pool = nn.AvgPool2d(image_pool, ceil_mode=True) if image_pool > 1 else nn.Identity()
        self.macs = (0,) * len(self.gated)
        self.start_macs = trunk.static_macs

    def begin(self, image: Tensor) -> State:
        return (self.trunk(self.pool(image)),)

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        (z_BK,) = state
        column = self.column[i]
        return F.pad(z_BK[:, column : column + 1], (1, 0)), state  # 0 for skip, z for run
