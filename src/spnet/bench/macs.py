"""The referee of our multiply-add tables: what torch itself counts while an executor that really skips runs."""

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spnet.inference.runtimes import branching
from spnet.network.dynamic import DynamicNetwork, Executor


@torch.no_grad()
def counted_macs(
    net: DynamicNetwork, images: Tensor, decisions: Tensor | None = None, executor: Executor = branching
) -> int:
    """Multiply-adds of convolutions and linears that torch counts for a whole batch, half of `FlopCounterMode`'s FLOPs.

    Args:
        decisions: (B, N) to force; None lets the network decide.
        executor: one that skips; with `masked` every block would be counted.
    """
    net.eval()
    counter = FlopCounterMode(display=False)
    with counter:
        if decisions is None:
            net(images, executor=executor)
        else:
            net.forward_path(images, decisions, executor=executor)
    return counter.get_total_flops() // 2
