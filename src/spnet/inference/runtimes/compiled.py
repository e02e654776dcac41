"""Masked execution through `torch.compile`, block by block: for training on a GPU.

Functions are compiled, not modules: blocks of the same shapes share a compilation, so that ResNet-110 costs no more of
them than ResNet-20.
"""

from functools import cache, partial

import torch

from spnet.inference.runtimes.masked import Dense, masked, whole

VARIANTS = 64
"""Compilations allowed: five shapes of block, each with and without gradient, gates, autocast and frozen statistics.
Torch's own limit of 8 would leave the rest uncompiled."""


@cache
def compiled(backend: str) -> Dense:
    """Compiles each shape of block when it is first met, which takes seconds; set as `net.dense`."""
    from torch._dynamo import config as tracing  # slow to import, and only needed here
    from torch._functorch import config as gradients

    tracing.recompile_limit = max(tracing.recompile_limit, VARIANTS)
    gradients.donated_buffer = False  # the last step of an epoch goes backward once for each loss term
    compile = partial(torch.compile, fullgraph=True, dynamic=False, backend=backend)
    return Dense(compile(masked), compile(whole))
