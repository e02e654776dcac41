"""The images of a run: what it trains on, what it watches each epoch, what the result is read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from spnet.data import Dataset, Source, balanced_subset, validation_part
from spnet.errors import UserError
from spnet.inference.calibrate import spread
from spnet.runs.config import RunConfig
from spnet.training.monitor import PROBE

S = TypeVar("S", bound=Source)
STEPS = 4
"""Steps an epoch gets at least when the batch is fitted to few images."""


@dataclass
class Parts:
    train: Source
    watched: Source
    held_out: bool
    """False when there is no validation part and `watched` is a piece of the training images."""
    test: Source = field(repr=False)

    @classmethod
    def of(cls, dataset: Dataset, config: RunConfig) -> "Parts":
        training = config.training
        train, watched = _divided(dataset.train, config)
        held_out = watched is not None
        watched = spread(train, PROBE) if watched is None else watched
        if training.batch_size > len(train):
            raise UserError(
                f"batch_size {training.batch_size} is larger than the {len(train)} training images: lower it."
            )
        return cls(train, watched, held_out, dataset.test)

    def to(self, device: torch.device) -> "Parts":
        return Parts(self.train.to(device), self.watched.to(device), self.held_out, self.test.to(device))


def _divided(images: S, config: RunConfig) -> tuple[S, S | None]:
    """What a run trains on and, where it has one, its validation part."""
    training = config.training
    images = balanced_subset(images, training.subset) if training.subset else images
    return validation_part(images, training.validation) if training.validation > 0 else (images, None)


def unseen(train: Source, configs: Sequence[RunConfig]) -> Tensor:
    """Indices of the training images that none of these runs was trained on: validation parts, what subsets left."""
    seen = torch.zeros(len(train), dtype=torch.bool)
    for config in configs:
        places: Any = _Places(torch.arange(len(train)), train.labels.cpu())
        seen[_divided(places, config)[0].index] = True
    return (~seen).nonzero().flatten()


@dataclass(frozen=True)
class _Places:
    """Stands for a split of images where only their places are asked for."""

    index: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def select(self, indices: Tensor | Sequence[int]) -> "_Places":
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return _Places(self.index[chosen], self.labels[chosen])


def with_fitting_batch(config: RunConfig, dataset: Dataset, note: Callable[[str], None]) -> RunConfig:
    """The config, with a smaller batch where its own is larger than the training images: the largest power of two that
    gives an epoch four steps. For a batch size that nobody asked for."""
    images = len(Parts.of(dataset, config.with_settings(batch_size=2)).train)
    asked = config.training.batch_size
    if asked <= images:
        return config
    fitting = max(2, 1 << (max(1, images // STEPS).bit_length() - 1))
    note(f"batch size {fitting} instead of {asked}: there are {images} training images.")
    return config.with_settings(batch_size=fitting)
