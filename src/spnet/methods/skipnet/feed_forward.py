"""Convolutional router: a small network of its own before every block. SkipNet's FFGate-I and FFGate-II.

    ff1   2x2 max pool, 3x3 conv, BN, ReLU, 3x3 conv stride 2, BN, ReLU, global average pool, linear C -> 2
    ff2   3x3 conv stride 2, BN, ReLU, global average pool, linear C -> 2

They cost 15.6 % (ff1) and 12.5 % (ff2) of a plain block's multiply-adds, hence ff1 for nets under 100 layers and ff2
above. Source: SkipNet (Wang et al., ECCV 2018), released code; the paper ends the gate in one number instead of two.

Shapes: B samples, C channels of a block's input.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spnet.backbones.cifar_resnet import GlobalAveragePool, conv_bn
from spnet.errors import UserError, choose
from spnet.routers.base import Router, State, gated_blocks

FORMS = ("ff1", "ff2")


class FeedForward(Router):
    """Convolutions start at N(0, sqrt(2 / (k k C_out))), biases as torch draws them; nothing favours running.

    The max pool keeps an odd last row or column (the released one drops it), so that 1x1 maps pass.

    Args:
        input_shapes: (C, height, width) of each block's input.
        gated: which blocks have a router.
        form: `ff1` or `ff2`.
    """

    def __init__(self, input_shapes: Sequence[tuple[int, ...]], gated: Sequence[bool], *, form: str = "ff1") -> None:
        super().__init__()
        choose("form", form, FORMS)
        self.gated = tuple(gated)
        self.gates = nn.ModuleDict()
        macs = [0] * len(self.gated)
        for i in gated_blocks(gated):
            if len(input_shapes[i]) != 3:
                raise UserError(f"convolutional gates read images, not features of {input_shapes[i]}: use gate 'rnn'.")
            width, *size = input_shapes[i]
            layers: list[nn.Module] = []
            if form == "ff1":
                layers += [nn.MaxPool2d(2, ceil_mode=True), *conv_bn(width, width, 3, 1), nn.ReLU()]
                size = [math.ceil(length / 2) for length in size]
                macs[i] += 9 * width * width * math.prod(size)
            size = [math.ceil(length / 2) for length in size]
            last = nn.Linear(width, 2)
            layers += [*conv_bn(width, width, 3, 2), nn.ReLU(), GlobalAveragePool(), last]
            macs[i] += 9 * width * width * math.prod(size) + 2 * width
            gate = nn.Sequential(*layers)
            for module in gate.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.normal_(last.weight, std=1.0)  # a 1x1 convolution to 2 channels in the released code: sqrt(2 / 2)
            self.gates[str(i)] = gate
        self.macs = tuple(macs)

    @property
    def last_layers(self) -> tuple[nn.Linear, ...]:
        return tuple(gate[-1] for gate in self.gates.values())  # type: ignore[index]

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        return self.gates[str(i)](x), state
