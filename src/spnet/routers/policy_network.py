"""Policy network: a small network looks at the image once and scores all blocks before the first one runs. BlockDrop.

A block is kept with probability p = sigmoid(z), written as the two logits [0, z]; all are known in `start`, so an
executor may plan the whole path. Nothing favours keeping: p starts near 0.5. Source: BlockDrop (Wu et al., CVPR 2018),
released code; its value head, built but never used, is left out.

Shapes: B samples, K blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spnet.backbones.base import Backbone
from spnet.routers.base import Router, State


class PolicyNetwork(Router):
    """Args:
    trunk: a plain network with one class per block of the network it steers, built for the pooled image.
    image_pool: the image is average-pooled by this first (2 in the released ImageNet code).
    """

    def __init__(self, trunk: Backbone, *, image_pool: int = 1) -> None:
        super().__init__()
        self.trunk = trunk
        self.pool = nn.AvgPool2d(image_pool, ceil_mode=True) if image_pool > 1 else nn.Identity()
        self.gated = (True,) * trunk.num_classes
        self.macs = (0,) * trunk.num_classes
        self.start_macs = trunk.static_macs

    def begin(self, image: Tensor) -> State:
        x = self.trunk.stem(self.pool(image))
        for block in self.trunk.blocks:
            x = block.run(x, len(block.macs) - 1)  # type: ignore[operator,arg-type]
        return (self.trunk.head(self.trunk.pool(x)),)

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        (z_BK,) = state
        return F.pad(z_BK[:, i : i + 1], (1, 0)), state  # 0 for skip, z for run
