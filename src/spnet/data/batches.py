"""Batches of a split that already lies on the device: shuffled for training, in order for evaluation."""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from spnet.data.dataset import Split
from spnet.errors import UserError


def epoch_batches(
    split: Split, batch_size: int, generator: Generator, drop_last: bool = True, part: tuple[int, int] = (0, 1)
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of (images uint8 (B, C, H, W), labels int64 (B,)), in one order drawn from `generator` at the call.

    `drop_last` leaves out what does not fill a batch, so that shapes are static. `part` (k, n) takes every n-th image
    of each batch from the k-th on: what one of n processes trains on. UserError if a batch is larger than the split.
    """
    _check(batch_size)
    if batch_size > len(split):
        raise UserError(f"a batch of {batch_size} is larger than the {len(split)} training images; use a smaller batch")
    order_N = torch.randperm(len(split), generator=generator, device=generator.device).to(split.images.device)
    end = len(split) - len(split) % batch_size if drop_last else len(split)
    first, every = part
    # `index_select` copies image by image: fifteen times faster on the CPU than indexing with [].
    return (
        (split.images.index_select(0, index_B), split.labels.index_select(0, index_B))
        for index_B in (whole[first::every] for whole in order_N[:end].split(batch_size))
    )


def ordered_batches(split: Split, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in their own order, as views; the last batch may be smaller."""
    _check(batch_size)
    return zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True)


def _check(batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"the batch size must be 1 or more, not {batch_size}")
