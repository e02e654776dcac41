"""Backbones: one family a file, one row here. A family is a function (num_classes, input_shape, skip_rule) ->
Backbone."""

from collections.abc import Callable
from functools import partial

from spnet.backbones.base import Backbone, Block, Stages
from spnet.backbones.cifar_resnet import cifar_resnet
from spnet.errors import choose
from spnet.network.rule import BlockRule

_FAMILIES: dict[str, Callable[..., Backbone]] = {
    f"resnet{depth}": partial(cifar_resnet, depth) for depth in (8, 14, 20, 26, 32, 38, 44, 56, 74, 92, 110, 152)
}


def list_backbones() -> list[str]:
    """Names that `create_backbone` knows."""
    return list(_FAMILIES)


def create_backbone(
    name: str, *, num_classes: int, input_shape: tuple[int, int, int] = (3, 32, 32), skip_rule: BlockRule | None = None
) -> Backbone:
    """Build the plain network `name`; `UserError` for an unknown one."""
    return _FAMILIES[choose("backbone", name, _FAMILIES)](
        num_classes=num_classes, input_shape=input_shape, skip_rule=skip_rule
    )


__all__ = ["Backbone", "Block", "BlockRule", "Stages", "create_backbone", "list_backbones"]
