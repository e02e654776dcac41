"""CoDiNet's relations between paths: copies of one image stay close, different images keep apart.

A path is a point: the gates of all blocks side by side. Distances are Euclidean and do not depend on the order of the
options (CoDiNet's index 0 is *run*, ours is *skip*). At distance 0 the norm's subgradient is 0, where a hand-written
root has an infinite slope.

Shapes: N images, n copies of each, adjacent in the batch of B = N n samples; K_i options of block i, D their sum.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spnet.numerics import mean, widened


def path_vectors(gates: Sequence[Tensor]) -> Tensor:
    """(B, D): the (B, K_i) gates of all blocks side by side. No gates: (0, 0)."""
    if not gates:
        return torch.zeros(0, 0)
    return torch.cat([widened(gate_BK) for gate_BK in gates], 1)


def consistency(paths_BD: Tensor, copies: int, margin: float) -> Tensor:
    """Mean over samples of max(|f - c| - margin, 0)^2, c the centre of the sample's n copies. CoDiNet's L_con.

    One copy: exactly 0.
    """
    paths_NnD = _grouped(paths_BD, copies)
    distance_Nn = torch.linalg.vector_norm(paths_NnD - paths_NnD.mean(1, keepdim=True), dim=2)
    return mean((distance_Nn - margin).relu().square())


def diversity(paths_BD: Tensor, copies: int, margin: float) -> Tensor:
    """Mean over the N(N-1)/2 pairs of images of max(margin - |c_i - c_j|, 0)^2, c the centres. CoDiNet's L_div.

    One image: 0 (the released code divides by zero). Centres that coincide are worth margin^2 and get no gradient:
    nothing says which way to part.
    """
    centres_ND = _grouped(paths_BD, copies).mean(1)
    images = len(centres_ND)
    # Not torch.pdist: its backward crashes the process when there are no images (torch 2.14).
    distance_NN = torch.linalg.vector_norm(centres_ND.unsqueeze(1) - centres_ND, dim=2)
    shortfall_NN = (margin - distance_NN).relu().square().triu(1)
    return shortfall_NN.sum() / max(images * (images - 1) // 2, 1)


def _grouped(paths_BD: Tensor, copies: int) -> Tensor:
    if copies < 1 or len(paths_BD) % copies:
        raise ValueError(f"a batch of {len(paths_BD)} does not hold whole groups of {copies} copies.")
    return widened(paths_BD).reshape(len(paths_BD) // copies, copies, paths_BD.shape[1])
