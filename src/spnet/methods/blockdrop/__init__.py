"""BlockDrop."""

from spnet.methods.blockdrop.method import (
    BlockDrop,
    BlockDropConfig,
    KnownPath,
    LastOpen,
    evaluating,
    open_blocks,
    self_critical_advantage,
)
from spnet.methods.blockdrop.policy_network import PolicyNetwork

__all__ = [
    "BlockDrop",
    "BlockDropConfig",
    "KnownPath",
    "LastOpen",
    "PolicyNetwork",
    "evaluating",
    "open_blocks",
    "self_critical_advantage",
]
