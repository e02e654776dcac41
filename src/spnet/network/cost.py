"""What a path costs: multiply-adds per sample, as tables on the network's device, so that nothing waits for the host.

Shapes: B samples, N blocks, K_i options of block i.
"""

import math

import torch
from torch import Tensor, nn

from spnet.backbones.base import Backbone
from spnet.errors import UserError, check_share
from spnet.network.heads import StageHeads
from spnet.network.trace import UNREACHED
from spnet.routers.base import Router


class PathCost(nn.Module):
    """The cost tables of a network. It has no weights; a module so that its tables follow the network's device."""

    blocks: Tensor
    """(N, max K_i) of each block's options, padded with zeros."""
    routers: Tensor
    """(N,) paid on reaching each block."""
    cheapest: Tensor
    """(N,) the least every sample runs: option 0 of each gated block, the last option of the others."""

    def __init__(self, backbone: Backbone, router: Router | None, stage_heads: StageHeads | None) -> None:
        super().__init__()
        self.options = backbone.options
        self.static = backbone.static_macs
        self.stem, self.head = backbone.stem_macs, backbone.head_macs
        self.last_stage = len(backbone.stages.lengths) - 1
        self.start = router.start_macs if router is not None else 0
        self.stage_heads = stage_heads.macs if stage_heads is not None else ()
        macs: list[tuple[int, ...]] = [block.macs for block in backbone.blocks]  # type: ignore[misc]
        padded = [[*row, *[0] * (max(self.options) - len(row))] for row in macs]
        self.register_buffer("blocks", torch.tensor(padded), persistent=False)
        routers = router.macs if router is not None else [0] * len(macs)
        self.register_buffer("routers", torch.tensor(routers), persistent=False)
        gated = router.gated if router is not None else (False,) * len(macs)
        least = [0 if has_router else k - 1 for has_router, k in zip(gated, self.options, strict=True)]
        self.register_buffer("cheapest", torch.tensor(least), persistent=False)
        for i, row in enumerate(map(torch.tensor, macs)):
            avoidable = row[-1] - row[0]
            share = (row - row[0]) / avoidable if avoidable else torch.linspace(0, 1, len(row))
            self.register_buffer(f"_share_{i}", share, persistent=False)

    def share(self, i: int) -> Tensor:
        """(K_i,) cost of each option of block i as a share of the full block's avoidable cost: 0 ... 1. Where nothing
        that is counted can be avoided, options are evenly spaced; a block with one option costs 0."""
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

    def spare(self, max_cost: float, *, heads: bool) -> int:
        """Multiply-adds that `max_cost`, a share of the static cost, leaves above the cheapest path (all routers and
        stage heads included).

        Raises:
            UserError: max_cost is no share, or lies below the cheapest path.
        """
        check_share("max_cost", max_cost, such_as=0.7)
        end = torch.tensor([self.last_stage], device=self.cheapest.device)
        least = int(self(self.cheapest[None], end, routed=True, heads=heads))
        spare = math.floor(max_cost * self.static) - least
        if spare < 0:
            reach = math.ceil(1e3 * least / self.static) / 1e3
            raise UserError(f"max_cost {max_cost} is out of reach: the cheapest path costs {reach} of the static cost.")
        return spare
