"""The arithmetic all losses share: precision, means over what is there, directions and divergences that stay finite.

Every loss computes in float32 at least, under autocast too, and is finite with a finite gradient on degenerate input.
A mean over nothing is 0: it has nothing to say and no gradient.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """x in float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def identity(x: Tensor) -> Tensor:
    return x


@lru_cache(maxsize=64)
def constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """float32 (N,), copied to the device once, not in every step. Not to be changed in place."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def mean(x: Tensor) -> Tensor:
    """Mean over all entries, 0 for none."""
    return x.sum() / max(x.numel(), 1)


def mean_where(value_B: Tensor, live_B: Tensor, reduce: Callable[[Tensor], Tensor] = identity) -> Tensor:
    """Mean over the entries that are live, 0 if none is; the others get no gradient at all and are not counted.

    Args:
        reduce: mean over processes. Sum and count are reduced apart, so that the mean is that of the global batch.
    """
    total = reduce(torch.where(live_B, value_B, 0).sum())
    count = reduce(live_B.sum().to(total.dtype))
    return total / torch.where(count > 0, count, 1)


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """x scaled to length 1 along `dim`; a zero vector stays zero and gets no gradient.

    A length of 0 is replaced by 1 *before* the division, so that the branch not taken is finite in backward too.
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    live = length > 0
    return torch.where(live, x / torch.where(live, length, 1), 0)


def softmax_kl(target_logits: Tensor, logits: Tensor) -> Tensor:
    """(..., K), (..., K) -> (...): KL(softmax(target_logits) || softmax(logits)) in nats, summed over the last axis."""
    log_target = F.log_softmax(widened(target_logits), -1)
    log_other = F.log_softmax(widened(logits), -1)
    return (log_target.exp() * (log_target - log_other)).sum(-1)


def by_option_count(blocks: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the (B, K_i) blocks grouped by K_i: a group stacks, one kernel instead of one a block."""
    groups: dict[int, list[int]] = {}
    for i, block_BK in enumerate(blocks):
        groups.setdefault(block_BK.shape[-1], []).append(i)
    return list(groups.values())


def check_alike(name: str, blocks: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Raise `ValueError` unless both sequences hold tensors of the same shapes: broadcasting would hide a slip."""
    if [x.shape for x in blocks] != [x.shape for x in others]:
        shapes, other_shapes = ([tuple(x.shape) for x in xs] for xs in (blocks, others))
        raise ValueError(f"{name} must have the same shapes on both sides, not {shapes} and {other_shapes}.")
