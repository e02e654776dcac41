"""Masked execution through `torch.compile`, block by block: for training on a GPU.

Functions are compiled, not modules: blocks of the same shapes share a compilation, so that ResNet-110 costs no more of
them than ResNet-20.
"""

from functools import cache

import torch

from spnet.executors.masked import Dense

VARIANTS = 64
"""Compilations allowed: five shapes of block, each with and without gradient, gates, autocast and frozen statistics.
Torch's own limit of 8 would leave the rest uncompiled."""


@cache
def compiled(backend: str = "inductor") -> Dense:
    """Compiles each shape of block when it is first met, which takes seconds; set as `net.dense`."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    return Dense(*(torch.compile(work, fullgraph=True, dynamic=False, backend=backend) for work in Dense()))
