"""Gathered execution: each option runs on just the samples that chose it. Skipped work is not done, at any batch
size."""

import torch
from torch import Tensor

from spnet.backbones.base import Block


def gathered(block: Block, x: Tensor, gate_BK: Tensor) -> Tensor:
    decisions = gate_BK.argmax(1)
    counts = torch.bincount(decisions, minlength=len(block.macs)).tolist()  # the one host sync of a block
    if x.shape[0] in counts:  # everybody agrees: nothing to gather
        option = counts.index(x.shape[0])
        return x if option == 0 and block.identity_skip else block.run(x, option)
    out = x.clone() if block.identity_skip else None
    for option, count in enumerate(counts):
        if count == 0 or (option == 0 and block.identity_skip):
            continue
        chosen = (decisions == option).nonzero().squeeze(1)
        part = block.run(x.index_select(0, chosen), option)
        if out is None:
            out = part.new_empty((x.shape[0], *part.shape[1:]))
            if part.dim() == 4 and part.is_contiguous(memory_format=torch.channels_last):
                out = out.to(memory_format=torch.channels_last)
        out.index_copy_(0, chosen, part)
    assert out is not None  # some count is positive
    return out
