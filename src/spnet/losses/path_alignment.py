"""Path alignment: router logits follow those of a guide (SP-Net: its momentum copy, the dynamic auxiliary module).

Shapes: B samples, L gated blocks, K_i options of block i.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spnet.errors import choose
from spnet.numerics import by_option_count, check_alike, mean, softmax_kl, widened


def path_alignment(
    router_logits: Sequence[Tensor], target_router_logits: Sequence[Tensor], form: str = "mse"
) -> Tensor:
    """Distance between two networks' raw router logits (before noise). The target gets no gradient.

    - `mse`: mean over blocks, samples and entries of (z - z_target)^2;
    - `kl`: mean over blocks and samples of KL(softmax(z_target) || softmax(z)), in nats.

    Every block weighs the same, however many options it has. No blocks: 0, a scalar on the CPU, which adds to a loss on
    any device. Source: SP-Net's L_path; mse [released code], kl an option of ours.

    Args:
        router_logits: one (B, K_i) per gated block.
        target_router_logits: the guide's, of the same shapes.
    """
    choose("form of path_alignment", form, ("mse", "kl"))
    check_alike("router logits", router_logits, target_router_logits)
    total = torch.zeros(())
    for group in by_option_count(router_logits):
        logits_LBK = widened(torch.stack([router_logits[i] for i in group]))
        target_LBK = widened(torch.stack([target_router_logits[i].detach() for i in group]))
        distance = (logits_LBK - target_LBK).square() if form == "mse" else softmax_kl(target_LBK, logits_LBK)
        total = total + mean(distance) * (len(group) / len(router_logits))
    return total
