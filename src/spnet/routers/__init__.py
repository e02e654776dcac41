"""Routers: features -> option logits, one kind a file. Here are those that several methods share; a kind that one
method uses lies in that method's folder."""

from importlib import import_module
from typing import Any

from spnet.routers.base import Router, State
from spnet.routers.pooled_mlp import PooledMLP

_MOVED = {
    "FeedForward": "spnet.methods.skipnet",
    "PolicyNetwork": "spnet.methods.blockdrop",
    "Recurrent": "spnet.methods.skipnet",
    "Relational": "spnet.methods.rdi_net",
    "TwoLinears": "spnet.methods.codinet",
}
"""Where kinds went that could be imported from here; imported when asked for, since methods stand above routers."""


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        return getattr(import_module(_MOVED[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = ["PooledMLP", "Router", "State"]
