"""Routers: features -> option logits, one kind a file."""

from spnet.routers.base import Router, State
from spnet.routers.feed_forward import FeedForward
from spnet.routers.linear import TwoLinears
from spnet.routers.policy_network import PolicyNetwork
from spnet.routers.pooled_mlp import PooledMLP
from spnet.routers.recurrent import Recurrent
from spnet.routers.relational import Relational

__all__ = ["FeedForward", "PolicyNetwork", "PooledMLP", "Recurrent", "Relational", "Router", "State", "TwoLinears"]
