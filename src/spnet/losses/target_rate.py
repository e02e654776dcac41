"""Rates and costs: how often blocks run, and what it costs to stray from a target.

Shapes: B samples, L gated blocks, K_i options of block i. Rates and costs are in blocks: a skipped block counts 0, a
full one 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spnet.errors import choose
from spnet.numerics import by_option_count, mean, widened


def execution_rates(gates: Sequence[Tensor], option_costs: Sequence[Tensor] | None = None) -> Tensor:
    """(L,) mean over samples of sum_k gate_k cost_k; differentiable. No gates: (0,).

    Args:
        gates: one (B, K_i) per gated block.
        option_costs: one (K_i,) per gated block, share of the full block; None: evenly from 0 to 1, so that for two
            options the rate is that of the execute gate.
    """
    executed_LB = _executed(gates, option_costs)
    return executed_LB.sum(1) / max(executed_LB.shape[1], 1)


def executed_blocks(gates: Sequence[Tensor], option_costs: Sequence[Tensor] | None = None) -> Tensor:
    """(B,) executed blocks per sample, in (partial) blocks; differentiable. Arguments as in `execution_rates`."""
    return _executed(gates, option_costs).sum(0)


def target_rate(rates_L: Tensor, target: float | Tensor, one_sided: bool = False, reduction: str = "mean") -> Tensor:
    """Mean (or sum) over blocks of (t_l - r_l)^2; one-sided: only of rates above their target.

    Source: ConvNet-AIG's L_rate (mean [released code]); one-sided: SP-Net on ImageNet [released code]. Not the same as
    a loss on the mean rate, which is far looser. Deviation: a block whose target is 1 should have no gate rather than
    be left out here.

    Args:
        target: one for all, or (L,).
        reduction: mean or sum.
    """
    choose("reduction of target_rate", reduction, ("mean", "sum"))
    above_L = widened(rates_L) - target
    squares_L = (above_L.relu() if one_sided else above_L).square()
    return mean(squares_L) if reduction == "mean" else squares_L.sum()


def cost_deviation(executed_B: Tensor, target_blocks: float) -> Tensor:
    """Mean over samples of |executed - T|, in blocks. SP-Net's L_cost, Table 1's third reading (our choice of form)."""
    return mean((widened(executed_B) - target_blocks).abs())


def cost_deviation_of_mean(executed_B: Tensor, target_blocks: float) -> Tensor:
    """|mean over samples of executed - T|, in blocks: single samples may stray.

    Source: CoDiNet's L_cost [released code], which is the batch *sum* |sum executed - T B| and so needs another weight
    for every batch size. Deviation: this is the same per sample; the released weight w becomes w B here.
    """
    return (mean(widened(executed_B)) - target_blocks).abs()


def _executed(gates: Sequence[Tensor], option_costs: Sequence[Tensor] | None) -> Tensor:
    """(L, B) what each sample ran of each block, as a share of the full block."""
    if option_costs is not None and [len(cost) for cost in option_costs] != [gate.shape[1] for gate in gates]:
        raise ValueError("option_costs needs one (K_i,) per gated block, K_i its number of options.")
    rows: dict[int, Tensor] = {}
    for group in by_option_count(gates):
        gate_LBK = widened(torch.stack([gates[i] for i in group]))
        if option_costs is None:
            cost = torch.linspace(0, 1, gate_LBK.shape[2], device=gate_LBK.device, dtype=gate_LBK.dtype)
        else:
            cost = torch.stack([option_costs[i] for i in group]).unsqueeze(1)
        rows.update(zip(group, (gate_LBK * cost).sum(2), strict=True))
    return torch.stack([rows[i] for i in range(len(gates))]) if rows else torch.zeros(0, 0)
