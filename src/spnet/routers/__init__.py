"""Routers: features -> option logits, one kind a file."""

from spnet.routers.base import Router
from spnet.routers.linear import TwoLinears
from spnet.routers.pooled_mlp import PooledMLP
from spnet.routers.relational import Relational

__all__ = ["PooledMLP", "Relational", "Router", "TwoLinears"]
