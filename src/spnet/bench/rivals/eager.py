"""torch as it is, and with batch norms folded in the layout that suits the processor."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spnet.bench.rivals.protocol import Bind, Call, Case, Rival


class Eager(Rival):
    name = "eager"

    def open(self, case: Case) -> Bind:
        return binding(case.net.backbone, torch.contiguous_format)


class Folded(Rival):
    name = "folded"

    def open(self, case: Case) -> Bind:
        return binding(folded(case.net.backbone).to(memory_format=torch.channels_last), torch.channels_last)


def binding(run: Callable[[Tensor], Tensor], layout: Any) -> Bind:
    """A torch network called on images in a layout: bringing them there counts."""

    def call(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return run(x.contiguous(memory_format=layout))

    def bind(images: np.ndarray) -> Call:
        return partial(call, torch.from_numpy(images))

    return bind


def folded(module: nn.Module) -> nn.Module:
    """A copy with every batch norm folded into the convolution before it in the same `Sequential`."""
    module = copy.deepcopy(module).eval()
    for part in list(module.modules()):
        if isinstance(part, nn.Sequential):
            for k in range(len(part) - 1):
                first, second = part[k], part[k + 1]
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    part[k], part[k + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return module
