"""A network of your own, with a block class the library has never seen, made dynamic.

    python examples/bring_your_own_block.py

`register_adapter` says what a block's residual branch, shortcut and tail are; everything else is found out: shapes,
multiply-adds, stages. The network is checked against itself: with every block run, it computes what it did.
"""

import torch
from torch import Tensor, nn

import spnet
from spnet.backbones.adapters import Unit


class Gate(nn.Module):
    """x + conv(relu(norm(x))): a pre-activation block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.norm(x).relu())


class Branch(nn.Module):
    """What a skip saves."""

    def __init__(self, block: Gate) -> None:
        super().__init__()
        self.norm, self.conv = block.norm, block.conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x).relu())


def network(num_classes: int = 10) -> nn.Sequential:
    """Two stages of two blocks; a strided convolution between them."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Sequential(Gate(8), Gate(8)),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.Sequential(Gate(16), Gate(16)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, num_classes),
    )


def main() -> None:
    spnet.register_adapter(Gate, block=lambda block: Unit([Branch(block)]))
    torch.manual_seed(0)
    model, example = network(), torch.randn(2, 3, 16, 16)
    print(spnet.find_blocks(model, example))
    net = spnet.make_dynamic(model, "spnet", example=example, exits="1", target=0.7).eval()
    trace = net(example)
    print(
        f"blocks run {trace.decisions.tolist()}, multiply-adds {trace.macs.tolist()}, {len(trace.stage_logits)} exits"
    )


if __name__ == "__main__":
    main()
