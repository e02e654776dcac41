"""Backbones by name from elsewhere: `torchvision:resnet18`, `timm:tf_efficientnet_lite0`, `package.module:function`.

Always with fresh weights: a run's own come from its safetensors file. A function of the user's is called as
`function(num_classes=...)` and returns a network that an adapter knows.
"""

import importlib
import inspect
import os
import sys
import warnings
from typing import Any

import torch
from torch import nn

from spnet.backbones.adapters.assemble import adapt
from spnet.backbones.base import Backbone
from spnet.errors import UserError, choose, did_you_mean
from spnet.network.rule import BlockRule

MODULES = "SPNET_MODULES"
"""Environment variable: modules, separated by commas, that a name in a file may have imported."""


def is_foreign(name: str) -> bool:
    return isinstance(name, str) and ":" in name


def import_backbone(name: str) -> None:
    """Import the module of `package.module:function`, for a name that the user has typed. A name that a file holds is
    not enough: opening a run never imports what it asks for."""
    if not is_foreign(name):
        return  # what is no name at all is refused where it is built
    source, _, function = name.partition(":")
    if source in ("torchvision", "timm", "") or not function:
        return
    try:
        importlib.import_module(source)
    except ImportError as error:
        raise UserError(f"backbone '{name}': cannot import {source} ({error}).") from error


def check_foreign(name: str) -> None:
    """`UserError` for a name that cannot be built here."""
    source, _, inner = name.partition(":")
    if source == "torchvision":
        from torchvision.models import list_models

        choose("torchvision network", inner, list_models())
    elif source == "timm":
        timm = _timm()
        if not timm.is_model(inner.partition(".")[0]):
            raise UserError(f"unknown timm network '{inner}'.{did_you_mean(inner, timm.list_models())}")
    else:
        _function(name)


def foreign_backbone(
    name: str, *, num_classes: int, input_shape: tuple[int, int, int], skip_rule: BlockRule | None = None
) -> Backbone:
    """Build the network `name` with fresh weights, as a backbone for images of `input_shape`."""
    check_foreign(name)
    model = _model(name, num_classes, input_shape)
    # Any example will do; a generator of its own keeps torch's default one where it is.
    example = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    return adapt(model, example, name=name, num_classes=num_classes, skip_rule=skip_rule)[0]


def _model(name: str, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    source, _, inner = name.partition(":")
    channels, height, width = input_shape
    if source == "torchvision":
        from torchvision.models import get_model

        if channels != 3:
            raise UserError(f"{name} takes images of 3 channels, not {channels}.")
        size = {"image_size": height} if inner.startswith("vit_") else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on initial weights that nobody has asked to be other than they are
            return get_model(inner, weights=None, num_classes=num_classes, **size)
    if source == "timm":
        timm = _timm()
        fixed = getattr(timm.models.get_pretrained_cfg(inner, allow_unregistered=True), "fixed_input_size", False)
        size = {"img_size": (height, width)} if fixed else {}
        return timm.create_model(inner, pretrained=False, num_classes=num_classes, in_chans=channels, **size)
    try:
        model = _function(name)(num_classes=num_classes)
    except TypeError as error:
        raise UserError(f"backbone '{name}' takes no num_classes, or fails: {error}.") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"backbone '{name}' returned {type(model).__name__}, not a torch module.")
    return model


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) per channel, in units of [0, 1], by which the pretrained weights of this network saw their images;
    None where nothing is known of any."""
    source, _, inner = name.partition(":")
    if source == "torchvision":
        from torchvision.models import get_model_weights

        published = list(get_model_weights(inner))
        seen = published[-1].transforms() if published else None
    elif source == "timm":
        seen = _timm().models.get_pretrained_cfg(inner, allow_unregistered=True)
    else:
        return None
    mean, std = getattr(seen, "mean", None), getattr(seen, "std", None)
    return (tuple(mean), tuple(std)) if mean and std else None


def _function(name: str) -> Any:
    source, _, inner = name.partition(":")
    if source not in sys.modules and source in os.environ.get(MODULES, "").split(","):
        import_backbone(name)
    if source not in sys.modules or source.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(
            f"backbone '{name}' is built by your module {source}: import it first, or name it in {MODULES}. Opening a "
            "run imports nothing that its files ask for."
        )
    function = getattr(sys.modules[source], inner, None)
    if not inspect.isfunction(function):
        raise UserError(f"backbone '{name}': {source} has no function '{inner}'.")
    return function


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError("backbones 'timm:...' need timm: pip install timm.") from error
    return timm
