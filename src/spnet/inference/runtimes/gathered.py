"""Gathered execution: each option runs on just the samples that chose it. Skipped work is not done, at any batch."""

import torch
from torch import Tensor

from spnet.network.block import Block


def gathered(block: Block, x: Tensor, gate_BK: Tensor) -> Tensor:
    decisions = gate_BK.argmax(1)
    counts = torch.bincount(decisions, minlength=block.num_options).tolist()  # the one host sync of a block
    if x.shape[0] in counts:  # everybody agrees: nothing to gather
        option = counts.index(x.shape[0])
        return x if option == 0 and block.identity_skip else block(x, option)
    out = x.clone() if block.identity_skip else None
    for option, count in enumerate(counts):
        if count == 0 or (option == 0 and block.identity_skip):
            continue
        chosen = (decisions == option).nonzero().squeeze(1)
        part = block(take_rows(x, chosen), option)
        if out is None:
            shape = [x.shape[0], *part.shape[1:]]
            out = torch.empty_permuted(shape, _layout(part), dtype=part.dtype, device=part.device)
        put_rows(out, chosen, part)
    assert out is not None  # some count is positive
    return out


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """x[index] in x's own memory layout. torch's index_select turns channels_last into channels_first, and every
    convolution behind it into a slower one."""
    order = _layout(x)
    laid_out = x.permute(order)
    rows = laid_out.reshape(x.shape[0], -1).index_select(0, index)
    return rows.view(-1, *laid_out.shape[1:]).permute([order.index(d) for d in range(x.dim())])


def put_rows(x: Tensor, index: Tensor, rows: Tensor) -> None:
    """x[index] = rows in place, without changing layouts on the way. x is dense."""
    order = _layout(x)
    flat = x.permute(order).view(x.shape[0], -1)
    flat.index_copy_(0, index, rows.permute(order).reshape(rows.shape[0], -1))


def _layout(x: Tensor) -> tuple[int, ...]:
    """Dimensions from the slowest to the fastest, the batch first (one sample's stride may claim otherwise)."""
    order = x.dim_order()
    return order if order[0] == 0 else tuple(range(x.dim()))
