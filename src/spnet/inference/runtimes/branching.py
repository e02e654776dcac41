"""Branching execution: an ordinary `if`, for batches whose samples all take the same option (batch 1 above all)."""

from torch import Tensor

from spnet.network.block import Block


def branching(block: Block, x: Tensor, gate_BK: Tensor) -> Tensor:
    options = gate_BK.argmax(1)
    option = int(options[0]) if len(options) else 0  # nobody is left after an early exit
    if bool((options != option).any()):
        raise ValueError("the branching executor needs one decision for the whole batch: use batch 1, or 'gathered'.")
    return x if option == 0 and block.identity_skip else block(x, option)
