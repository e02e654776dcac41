"""Backbones: the package's own, one family a file and one row here, and those of other libraries by `SOURCE:NAME`.

A family is a function (num_classes, input_shape, skip_rule) -> Backbone.
"""

from collections.abc import Callable
from functools import partial

from spnet.backbones.base import Backbone, Block, Stages
from spnet.backbones.cifar_resnet import cifar_resnet
from spnet.backbones.sources import check_foreign, foreign_backbone, import_backbone, is_foreign
from spnet.errors import UserError, did_you_mean
from spnet.network.rule import BlockRule

_FAMILIES: dict[str, Callable[..., Backbone]] = {
    f"resnet{depth}": partial(cifar_resnet, depth) for depth in (8, 14, 20, 26, 32, 38, 44, 56, 74, 92, 110, 152)
}


def list_backbones() -> list[str]:
    """Names of the package's own backbones.

    Example:
        >>> "resnet20" in spnet.list_backbones()
        True
    """
    return list(_FAMILIES)


def check_backbone(name: str) -> str:
    """Return `name` if it can be built here; else raise a `UserError` that names the nearest."""
    if not isinstance(name, str):
        raise UserError(f"a backbone is known by its name, such as 'resnet20'; not {type(name).__name__}.")
    if is_foreign(name):
        check_foreign(name)
        return name
    if name not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        raise UserError(
            f"unknown backbone '{name}'.{did_you_mean(name, _FAMILIES)} Known: {known}; torchvision:NAME, timm:NAME, "
            "package.module:function."
        )
    return name


def create_backbone(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    skip_rule: BlockRule | None = None,
) -> Backbone:
    """Build the plain network `name` with fresh weights: one of `list_backbones()`, `torchvision:NAME`, `timm:NAME`, or
    `package.module:function` of an imported module. `UserError` for an unknown one."""
    build = partial(foreign_backbone, name) if is_foreign(name) else _FAMILIES[check_backbone(name)]
    return build(num_classes=num_classes, input_shape=input_shape, skip_rule=skip_rule)


__all__ = [
    "Backbone",
    "Block",
    "BlockRule",
    "Stages",
    "check_backbone",
    "create_backbone",
    "import_backbone",
    "list_backbones",
]
