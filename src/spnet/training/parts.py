"""The images of a run: what it trains on, what it watches each epoch, what the result is read from."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from spnet.data import Dataset, Source, balanced_subset, validation_part
from spnet.errors import UserError
from spnet.inference.calibrate import spread
from spnet.runs.config import RunConfig
from spnet.training.monitor import PROBE

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
        train = balanced_subset(dataset.train, training.subset) if training.subset else dataset.train
        held_out = training.validation > 0
        train, watched = validation_part(train, training.validation) if held_out else (train, spread(train, PROBE))
        if training.batch_size > len(train):
            raise UserError(
                f"batch_size {training.batch_size} is larger than the {len(train)} training images: lower it."
            )
        return cls(train, watched, held_out, dataset.test)

    def to(self, device: torch.device) -> "Parts":
        return Parts(self.train.to(device), self.watched.to(device), self.held_out, self.test.to(device))


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
