"""spnet: dynamic inference networks that decide per image which of their blocks to run, and really skip the rest."""

from typing import TYPE_CHECKING, Any

from spnet.errors import DivergedError, ImagesWarning, NoEffectWarning, UserError
from spnet.version import __version__

if TYPE_CHECKING:
    from spnet import losses
    from spnet.backbones import list_backbones
    from spnet.backbones.adapters import register_adapter
    from spnet.backbones.adapters.find import find_blocks
    from spnet.build import create_model
    from spnet.door import calibrate, evaluate, export, train
    from spnet.inference.batch.predict import predict_files
    from spnet.inference.cascade import Cascade
    from spnet.inference.engine import Engine
    from spnet.make import make_dynamic
    from spnet.methods import list_methods
    from spnet.network.dynamic import DynamicNetwork
    from spnet.network.trace import Trace
    from spnet.runs.open import load
    from spnet.runs.record import Evaluation
    from spnet.runs.run import Run

_HOMES = {
    "Cascade": "spnet.inference.cascade",
    "DynamicNetwork": "spnet.network.dynamic",
    "Engine": "spnet.inference.engine",
    "Evaluation": "spnet.runs.record",
    "Run": "spnet.runs.run",
    "Trace": "spnet.network.trace",
    "calibrate": "spnet.door",
    "create_model": "spnet.build",
    "evaluate": "spnet.door",
    "export": "spnet.door",
    "find_blocks": "spnet.backbones.adapters.find",
    "list_backbones": "spnet.backbones",
    "list_methods": "spnet.methods",
    "load": "spnet.runs.open",
    "make_dynamic": "spnet.make",
    "predict_files": "spnet.inference.batch.predict",
    "register_adapter": "spnet.backbones.adapters",
    "train": "spnet.door",
}
"""Where each public name lives. Imported on first use, so that `spnet --help` does not wait for torch."""


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("losses", "methods", "backbones", "routers", "data", "training", "inference", "runs", "hub"):
        return importlib.import_module(f"spnet.{name}")
    raise AttributeError(f"module 'spnet' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__])


__all__ = [
    "Cascade",
    "DivergedError",
    "DynamicNetwork",
    "Engine",
    "Evaluation",
    "ImagesWarning",
    "NoEffectWarning",
    "Run",
    "Trace",
    "UserError",
    "__version__",
    "calibrate",
    "create_model",
    "evaluate",
    "export",
    "find_blocks",
    "list_backbones",
    "list_methods",
    "load",
    "losses",
    "make_dynamic",
    "predict_files",
    "register_adapter",
    "train",
]
