"""Forcing decisions through the graph's `router_bias` input, so that routers run and are overruled."""

import numpy as np
from torch import Tensor

from spnet.network.dynamic import DynamicNetwork

FORCE = 1e30
"""Far above any finite logit in float32, far below its limit when two are subtracted."""


class Forcing:
    """Decisions -> router bias, in a handful of array operations: it is paid at every forced call.

    Shapes: B samples, N blocks, R = sum of K_i over gated blocks.
    """

    def __init__(self, net: DynamicNetwork) -> None:
        gated = net.gated_indices
        fixed = [i for i in range(len(net.options)) if i not in set(gated)]
        self.blocks = len(net.options)
        self.options = net.options
        columns = [(i, k) for i in gated for k in range(net.options[i])]
        self.width = len(columns)
        self.starts: list[int | None] = [None] * self.blocks
        for column, (i, k) in reversed(list(enumerate(columns))):
            self.starts[i] = column - k
        # A block without a router has one decision that is right: its column is looked at, and left out of the bias.
        columns += [(i, net.options[i] - 1) for i in fixed]
        self.block_of_column, self.option_of_column = np.array(columns, np.int64).reshape(-1, 2).T.copy()

    def __call__(self, decisions: np.ndarray, batch: int) -> np.ndarray | None:
        """(B, R) float32: `FORCE` at the option each sample is to take. None where the decisions, (B, N) or (N,)
        integers, do not name a path for each of `batch` samples."""
        if decisions.dtype.kind not in "iu" or decisions.shape not in ((self.blocks,), (batch, self.blocks)):
            return None
        if batch == 1:
            return self._one(decisions.ravel().tolist())
        taken = decisions[..., self.block_of_column] == self.option_of_column
        if np.count_nonzero(taken) != decisions.size:
            return None
        bias = np.zeros((batch, self.width), np.float32)
        bias[:] = taken[..., : self.width]
        bias *= np.float32(FORCE)
        return bias

    def _one(self, decisions: list[int]) -> np.ndarray | None:
        """The same for one sample, in plain Python: between two runs of a network, whose weights fill the cache, the
        first call of each array operation takes longer than all of this."""
        row = [0.0] * self.width
        for taken, options, start in zip(decisions, self.options, self.starts, strict=True):
            if start is None:
                if taken != options - 1:
                    return None
            elif 0 <= taken < options:
                row[start + taken] = FORCE
            else:
                return None
        return np.array([row], np.float32)


def force_bias(net: DynamicNetwork, decisions: Tensor) -> np.ndarray:
    """(B, R) as `Forcing`, from a tensor (B, N) that names paths."""
    bias = Forcing(net)(decisions.cpu().numpy(), len(decisions))
    assert bias is not None
    return bias
