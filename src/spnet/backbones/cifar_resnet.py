"""CIFAR ResNet-6n+2 (He et al., CVPR 2016, section 4.2): a 3x3 stem of 16 channels, three stages of n basic blocks with
16, 32 and 64 channels, global average pooling, one linear layer.

With every block run, each `BlockRule` is a plain ResNet.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spnet.backbones.base import Backbone
from spnet.errors import UserError
from spnet.network.block import Block, per_sample
from spnet.network.rule import BlockRule


class PadShortcut(nn.Module):
    """Parameter-free transition shortcut: halve the resolution, append zero channels."""

    def __init__(self, extra_channels: int, stride: int, average: bool) -> None:
        super().__init__()
        self.extra_channels = extra_channels
        self.stride = stride
        self.average = average

    def forward(self, x: Tensor) -> Tensor:
        if self.average and self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        else:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra_channels))


def conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class BasicBlock(Block):
    """Two 3x3 convolutions and a shortcut; see `BlockRule` for its options."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, rule: BlockRule) -> None:
        super().__init__()
        transition = stride != 1 or in_channels != out_channels
        self.rule = rule
        self.num_options = rule.options
        self.residual1 = conv_bn(in_channels, out_channels, 3, stride)
        self.residual2 = conv_bn(out_channels, out_channels, 3, 1)
        self.shortcut: nn.Module = nn.Identity()
        self.own_skip: nn.Module = nn.Identity()
        with torch.random.fork_rng(devices=[]):  # what some rules add must not change what all draw
            if transition and rule.shortcut == "projection":
                self.shortcut = conv_bn(in_channels, out_channels, 1, stride)
            elif transition:
                self.shortcut = PadShortcut(out_channels - in_channels, stride, average=rule.shortcut == "avgpool")
            if transition and rule.skip == "own-projection":
                self.own_skip = nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride), nn.ReLU())
        # Inputs are outputs of a ReLU (or of a skip of one), hence >= 0: ReLU(x) = x and every rule's skip is the
        # identity.
        self.identity_skip = not transition

    def run(self, x: Tensor, option: int) -> Tensor:
        if option == 0:
            return self._skip(x)
        h = self.residual1(x).relu_()
        if option == self.num_options - 1:
            h = self.residual2(h)
        return (self.shortcut(x) + h).relu_()

    def mix(self, x: Tensor, gate_BK: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        h = self.residual1(x).relu_()
        residual = self.residual2(h)
        weight = [per_sample(gate_B, residual) for gate_B in gate_BK.unbind(1)]
        if self.num_options == 2 and self.rule.skip == "relu":
            # ConvNet-AIG's form: the gate scales the residual inside the ReLU, so its gradient is <grad, F(x)>.
            return torch.addcmul(shortcut, residual, weight[-1]).relu_()
        mixed = weight[-1] * F.relu(shortcut + residual) + weight[0] * self._skip(x, shortcut)
        if self.num_options == 3:
            mixed = mixed + weight[1] * F.relu(shortcut + h)
        return mixed

    def _skip(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        if self.rule.skip == "own-projection":
            return self.own_skip(x)
        kept = self.shortcut(x) if shortcut is None else shortcut
        return F.relu(kept) if self.rule.skip == "relu" else kept


class GlobalAveragePool(nn.Module):
    """(B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        # The mean, with a backward pass that divides before it spreads: no tensor of x's size is written for it.
        return x.sum((2, 3)) / (x.shape[2] * x.shape[3])


def cifar_resnet(
    depth: int, *, num_classes: int, input_shape: tuple[int, int, int] = (3, 32, 32), skip_rule: BlockRule | None = None
) -> Backbone:
    """Build ResNet-`depth` for small images of any size and channel count.

    Args:
        depth: 6n + 2 with n >= 1: 8, 14, 20, 32, 44, 56, 110 ...
        num_classes: width of the head.
        input_shape: (channels, height, width); fixes the multiply-add counts, not the weights.
        skip_rule: what the options of a block are.
    """
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"a CIFAR ResNet has 6n + 2 layers (8, 14, 20, ..., 110), not {depth}.")
    rule = skip_rule or BlockRule()
    length = (depth - 2) // 6
    widths = (16, 32, 64)
    stem = nn.Sequential(*conv_bn(input_shape[0], widths[0], 3, 1), nn.ReLU(inplace=True))
    blocks: list[Block] = []
    current = widths[0]
    for stage, out in enumerate(widths):
        for position in range(length):
            stride = 2 if stage > 0 and position == 0 else 1
            blocks.append(BasicBlock(current, out, stride, rule))
            current = out
    backbone = Backbone(
        name=f"resnet{depth}",
        stem=stem,
        blocks=blocks,
        stages=(length,) * 3,
        head=nn.Linear(current, num_classes),
        pool=GlobalAveragePool(),
        input_shape=input_shape,
    )
    convolutions = [(name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d)]
    for _, module in sorted(convolutions, key=lambda named: _belongs_to_a_rule(named[0])):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone


def _belongs_to_a_rule(name: str) -> bool:
    """Whether a layer is there under some rules only. Such layers are drawn last: the others are then the same under
    every rule, and seed s means one backbone."""
    return ".shortcut." in name or ".own_skip." in name
