"""Forcing decisions through the graph's `router_bias` input, so that routers run and are overruled."""

import numpy as np
from torch import Tensor

from spnet.dynamic import DynamicNetwork

FORCE = 1e30
"""Far above any finite logit in float32, far below its limit when two are subtracted."""


class Forcing:
    """Decisions -> router bias, without a loop over blocks: it is paid at every forced call.

    Shapes: B samples, N blocks, L gated blocks, R = sum of K_i over gated blocks.
    """

    def __init__(self, net: DynamicNetwork) -> None:
        self.gated = np.array(net.gated_indices, np.int64)
        widths = np.array([net.options[i] for i in net.gated_indices], np.int64)
        self.starts = np.cumsum(widths) - widths
        self.width = int(widths.sum())
        self.lowest = net.cheapest_path.cpu().numpy()
        self.options = np.array(net.options)

    def valid(self, decisions: np.ndarray, batch: int) -> bool:
        """Whether integers (B, N) or (N,) name a path for each of `batch` samples."""
        shape = decisions.shape[-1:] if decisions.ndim == 1 else decisions.shape
        return (
            decisions.dtype.kind in "iu"
            and shape == ((len(self.options),) if decisions.ndim == 1 else (batch, len(self.options)))
            and bool(((decisions >= self.lowest) & (decisions < self.options)).all())
        )

    def bias(self, decisions: np.ndarray, batch: int) -> np.ndarray:
        """(B, R) float32: `FORCE` at the option each sample is to take. Decisions (B, N) or (N,)."""
        bias = np.zeros((batch, self.width), np.float32)
        columns = self.starts + decisions[..., self.gated].clip(min=0)
        bias[np.arange(batch)[:, None], columns] = FORCE
        return bias


def force_bias(net: DynamicNetwork, decisions: Tensor) -> np.ndarray:
    """(B, R) as `Forcing.bias`, from a tensor (B, N)."""
    return Forcing(net).bias(decisions.cpu().numpy(), len(decisions))
