"""Methods: one method = one file in this folder. Files are found, not listed: a new one needs no edit elsewhere."""

import importlib
import pkgutil

from spnet.errors import UserError, choose
from spnet.methods.base import Batch, Losses, Method, MethodConfig, Optimizer, Phase, Step

WRAPPERS = ("spnet",)
"""Methods that wrap another one: `--with NAME`."""


def _found() -> dict[str, type[Method]]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    classes = {}
    stack = [Method]
    while stack:
        cls = stack.pop()
        stack.extend(cls.__subclasses__())
        if "name" in vars(cls):
            classes[cls.name] = cls
    return dict(sorted(classes.items()))


def list_methods() -> list[str]:
    """Names of all methods, those defined in the user's own imported modules included."""
    return list(_found())


def method_class(name: str) -> type[Method]:
    found = _found()
    return found[choose("method", name, found)]


def wrapper_class(name: str) -> type[Method]:
    return method_class(choose("wrapper for 'with'", name, WRAPPERS))


def check_composition(method: str, wrapper: str) -> None:
    """Raise `UserError` for a wrapper around a wrapper."""
    if wrapper and method in WRAPPERS:
        raise UserError(
            f"'{method}' is a wrapper already; name the method inside: --method convnet-aig --with {wrapper}."
        )


__all__ = [
    "WRAPPERS",
    "Batch",
    "Losses",
    "Method",
    "MethodConfig",
    "Optimizer",
    "Phase",
    "Step",
    "check_composition",
    "list_methods",
    "method_class",
    "wrapper_class",
]
