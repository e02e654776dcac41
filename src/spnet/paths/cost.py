"""What a path costs: multiply-adds per sample, as tables on the network's device, so that nothing waits for the host.

Shapes: B samples, N blocks, K_i options of block i.
"""

import torch
from torch import Tensor, nn

from spnet.backbones.base import Backbone
from spnet.heads import StageHeads
from spnet.routers.base import Router
from spnet.trace import UNREACHED


class PathCost(nn.Module):
    """The cost tables of a network. It has no weights; a module so that its tables follow the network's device."""

    blocks: Tensor
    """(N, max K_i) of each block's options, padded with zeros."""
    routers: Tensor
    """(N,) paid on reaching each block."""

    def __init__(self, backbone: Backbone, router: Router | None, stage_heads: StageHeads | None) -> None:
        super().__init__()
        self.options = backbone.options
        self.stem, self.head = backbone.stem_macs, backbone.head_macs
        self.last_stage = len(backbone.stages.lengths) - 1
        self.start = router.start_macs if router is not None else 0
        self.stage_heads = stage_heads.macs if stage_heads is not None else ()
        macs: list[tuple[int, ...]] = [block.macs for block in backbone.blocks]  # type: ignore[misc]
        padded = [[*row, *[0] * (max(self.options) - len(row))] for row in macs]
        self.register_buffer("blocks", torch.tensor(padded), persistent=False)
        routers = router.macs if router is not None else [0] * len(macs)
        self.register_buffer("routers", torch.tensor(routers), persistent=False)
        for i, row in enumerate(map(torch.tensor, macs)):
            self.register_buffer(f"_share_{i}", (row - row[0]) / (row[-1] - row[0]), persistent=False)

    def share(self, i: int) -> Tensor:
        """(K_i,) cost of each option of block i as a share of the full block's avoidable cost: 0 ... 1."""
        return getattr(self, f"_share_{i}")

    def forward(self, decisions: Tensor, exit_stage: Tensor, *, routed: bool, heads: bool) -> Tensor:
        """(B,) of each path: stem, options run, routers reached, heads run.

        Args:
            decisions: (B, N), -1 where a block was not reached.
            exit_stage: (B,) the stage at which each sample left.
            routed: routers ran. heads: stage heads ran.
        """
        reached = decisions != UNREACHED
        macs = self.blocks.expand(len(decisions), -1, -1).gather(2, decisions.clamp(min=0).unsqueeze(2)).squeeze(2)
        total = (macs * reached).sum(1) + self.stem
        if routed:
            total = total + self.start + (self.routers * reached).sum(1)
        total = total + self.head * (exit_stage == self.last_stage)
        if heads:
            for stage, head_macs in enumerate(self.stage_heads):
                total = total + head_macs * (exit_stage >= stage)
        return total
