"""A network that takes larger images than it was made for, and looks at them smaller."""

import copy
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from spnet.errors import UserError
from spnet.network.dynamic import DynamicNetwork

M = TypeVar("M", bound=nn.Module)


class Smaller(nn.Module):
    """Images (B, C, H, W) resized to (height, width): bilinear with antialiasing, as photographs are."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)


def taking(net: DynamicNetwork, input_shape: tuple[int, int, int]) -> DynamicNetwork:
    """The network for images of another shape (C, H, W), which it resizes to its own; itself where that is its own.
    Weights and threshold are shared. Resizing takes no multiply-adds; the time it takes is measured with the rest.

    Raises:
        UserError: other channels, or images smaller than the network's own.
    """
    own = tuple(net.input_shape)
    if own == tuple(input_shape):
        return net
    if own[0] != input_shape[0] or own[1] > input_shape[1] or own[2] > input_shape[2]:
        raise UserError(f"a network for images of {own} cannot look at images of {tuple(input_shape)}.")
    twin, backbone = _shallow(net), _shallow(net.backbone)
    backbone.stem = nn.Sequential(Smaller(*own[1:]), net.backbone.stem)
    backbone.input_shape = input_shape
    twin.backbone = backbone
    return twin


def _shallow(module: M) -> M:
    """Another module of the same parts; parts of it can be replaced without touching the first."""
    twin = copy.copy(module)
    twin.__dict__["_modules"] = dict(module._modules)
    return twin
