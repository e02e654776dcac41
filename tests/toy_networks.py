"""Networks small enough to know everything about: every path can be listed, 100,000 samples pass in a blink."""

import torch
from torch import Tensor, nn

from spnet.backbones.base import Backbone, Block


class ToyBlock(Block):
    """x or x + conv1x1(x), on 1x1 images."""

    num_options = 2
    identity_skip = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1)

    def run(self, x: Tensor, option: int) -> Tensor:
        return x + self.conv(x).tanh() if option else x

    def mix(self, x: Tensor, gate_BK: Tensor) -> Tensor:
        return x + gate_BK[:, 1, None, None, None].to(x.dtype) * self.conv(x).tanh()


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def toy_backbone(blocks: int, *, width: int = 3, classes: int = 2, kind: type[ToyBlock] = ToyBlock) -> Backbone:
    """Images of (width, 1, 1), one stage."""
    return Backbone(
        name="toy",
        stem=nn.Conv2d(width, width, 1),
        blocks=[kind(width) for _ in range(blocks)],
        stages=(blocks,),
        head=nn.Linear(width, classes),
        pool=Pool(),
        input_shape=(width, 1, 1),
    )


def gradients(value: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """Slope of `value` at every parameter, zero where it does not reach."""
    named = dict(module.named_parameters())
    found = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if slope is None else slope
        for (name, parameter), slope in zip(named.items(), found, strict=True)
    }
