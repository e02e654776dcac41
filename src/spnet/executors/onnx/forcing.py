"""Forcing decisions through the graph's `router_bias` input, so that routers run and are overruled."""

import numpy as np
from torch import Tensor

from spnet.dynamic import DynamicNetwork

FORCE = 1e30
"""Far above any finite logit in float32, far below its limit when two are subtracted."""


def force_bias(net: DynamicNetwork, decisions: Tensor) -> np.ndarray:
    """(B, sum of K_i over gated blocks) float32: `FORCE` at the option each sample is to take. Decisions (B, N)."""
    parts = []
    for i in net.gated_indices:
        part = np.zeros((len(decisions), net.options[i]), np.float32)
        part[np.arange(len(decisions)), decisions[:, i].cpu().numpy().clip(min=0)] = FORCE
        parts.append(part)
    return np.concatenate(parts, 1) if parts else np.zeros((len(decisions), 0), np.float32)
