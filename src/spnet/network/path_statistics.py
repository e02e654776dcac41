"""Statistics of decisions and features: what is watched, never minimised. Scalars are 0-dim tensors without gradient.

Decisions are integers: 0 = skip ... K - 1 = full, -1 = unreached (the sample had left the network).

Shapes: B samples, N blocks, C_s channels of stage s.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from spnet.numerics import mean, softmax_kl, widened


def execution_rate_per_block(decisions_BN: Tensor, options: Sequence[int] | None = None) -> Tensor:
    """(N,) share of samples that run a block, in part or in full. An unreached block has not run. No samples: 0.

    Args:
        options: of each block; one with a single option runs wherever it is reached. None: all have more.
    """
    least_N = torch.tensor([min(k - 1, 1) for k in options or ()], device=decisions_BN.device) if options else 1
    return (decisions_BN >= least_N).sum(0) / max(len(decisions_BN), 1)


def distinct_paths(decisions_BN: Tensor) -> int:
    """How many different paths the samples take."""
    batch, blocks = decisions_BN.shape
    return len(decisions_BN.unique(dim=0)) if batch and blocks else min(batch, 1)


def flip_share(before_BN: Tensor, after_BN: Tensor) -> Tensor:
    """Share of decisions that differ, over (sample, block) pairs reached in at least one of the two."""
    if before_BN.shape != after_BN.shape:
        raise ValueError(f"decisions differ in shape: {tuple(before_BN.shape)} and {tuple(after_BN.shape)}.")
    reached_BN = (before_BN >= 0) | (after_BN >= 0)
    return (before_BN != after_BN).sum() / reached_BN.sum().clamp(min=1)


def path_agreement(a_BN: Tensor, b_BN: Tensor) -> Tensor:
    """Share of decisions that are alike, for example of two augmented views of the same images: 1 - `flip_share`."""
    return 1 - flip_share(a_BN, b_BN)


def decision_entropy(decisions_BN: Tensor) -> Tensor:
    """(N,) entropy in nats of the options each block's samples choose: 0 for a block that always decides alike.

    Over the samples that reach the block; 0 if none does. At most ln K.
    """
    if not decisions_BN.numel():
        return torch.zeros(decisions_BN.shape[1], device=decisions_BN.device)
    options_K = torch.arange(int(decisions_BN.max()) + 1, device=decisions_BN.device)
    count_NK = (decisions_BN.unsqueeze(2) == options_K).sum(0)
    share_NK = count_NK / count_NK.sum(1, keepdim=True).clamp(min=1)
    return torch.special.entr(share_NK).sum(1)


@torch.no_grad()
def evolution_kl(stage_features: Sequence[Tensor]) -> Tensor:
    """KL divergence between the features of adjoining stages, in nats: the stability figure of SP-Net's supplement,
    Fig. 2.

    Pooled features are average-pooled over channels to the narrowest stage's width and softmaxed; KL(next || this),
    mean over samples and pairs of stages. No learned part, so that it means the same for every method. Fewer than two
    stages: 0.

    Args:
        stage_features: one (B, C_s) per stage, after global average pooling.
    """
    if len(stage_features) < 2:
        return torch.zeros(())
    width = min(feature_BC.shape[1] for feature_BC in stage_features)
    pooled = [F.adaptive_avg_pool1d(widened(feature_BC), width) for feature_BC in stage_features]
    return mean(torch.stack([softmax_kl(next_BW, this_BW) for this_BW, next_BW in pairwise(pooled)]))


def always_blocks(decisions_BN: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the blocks that every sample runs, and of those that every sample skips, among the samples that reach
    them.

    Both are signs of collapse. A block nobody reaches is in neither.
    """
    reached_BN = decisions_BN >= 0
    seen_N = reached_BN.any(0)
    run_N = seen_N & ((decisions_BN > 0) | ~reached_BN).all(0)
    skipped_N = seen_N & (decisions_BN <= 0).all(0)
    return tuple(run_N.nonzero().flatten().tolist()), tuple(skipped_N.nonzero().flatten().tolist())
