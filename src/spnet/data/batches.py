"""Batches of a split: shuffled for training, in order for evaluation."""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from spnet.data.source import Source
from spnet.errors import UserError
from spnet.progress import counted


def epoch_batches(
    split: Source,
    batch_size: int,
    generator: Generator,
    drop_last: bool = True,
    part: tuple[int, int] = (0, 1),
    copies: int = 1,
    augmented: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of (images uint8, labels int64 (B,)), in one order drawn from `generator` at the call; the rest as of
    `Source.epoch`.

    `drop_last` leaves out what does not fill a batch, so that shapes are static. UserError if a batch is larger than
    the split.
    """
    _check(batch_size)
    if batch_size > len(split):
        raise UserError(f"a batch of {batch_size} is larger than the {len(split)} training images; use a smaller batch")
    order_N = torch.randperm(len(split), generator=generator, device=generator.device)
    end = len(split) - len(split) % batch_size if drop_last else len(split)
    seed = generator.initial_seed()
    return split.epoch(order_N[:end], batch_size, part=part, copies=copies, augmented=augmented, seed=seed)


def ordered_batches(split: Source, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in their own order, as the test sees them; the last batch may be smaller."""
    _check(batch_size)
    return counted(split.in_order(batch_size), "images", len(split), lambda batch: len(batch[1]))


def _check(batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"the batch size must be 1 or more, not {batch_size}")
