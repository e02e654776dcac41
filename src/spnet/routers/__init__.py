"""Routers: features -> option logits, one kind a file."""

from spnet.routers.base import Router
from spnet.routers.pooled_mlp import PooledMLP

__all__ = ["PooledMLP", "Router"]
