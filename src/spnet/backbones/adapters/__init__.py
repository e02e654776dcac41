"""Adapters: how networks of other libraries become a `Backbone`. One family a file; classes are known by name."""

from spnet.backbones.adapters import convnext, mbconv, regnet, resnet, vit  # noqa: F401  (they register themselves)
from spnet.backbones.adapters.parts import Parts, Unit
from spnet.backbones.adapters.registry import register_adapter

__all__ = ["Parts", "Unit", "register_adapter"]
