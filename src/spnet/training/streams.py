"""Separate random streams, drawn anew each epoch from (seed, name, epoch).

Order and augmentation, student noise, dropout masks and teacher noise never share a generator, so that switching a term
off changes nothing else, and seed s gives every method the same order. Because an epoch's streams follow from its
number, resume at an epoch's start needs no generator state.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spnet.network.dynamic import Noise
from spnet.seeds import stream_seed
from spnet.training.sharing import ALONE, Sharing


class Streams:
    """The generators of one epoch, on one device. Several processes draw alike, each for its images; only modules that
    bring their own randomness draw by process (`module_noise`)."""

    def __init__(self, seed: int, epoch: int, device: torch.device, sharing: Sharing = ALONE) -> None:
        def seeded(generator: torch.Generator, name: str) -> torch.Generator:
            return generator.manual_seed(stream_seed(seed, name, epoch, 0))

        def stream(name: str) -> torch.Generator:
            return seeded(sharing.generator(device), name)

        self.order = seeded(torch.Generator(device=device), "order")
        self.augmentation = stream("augmentation")
        self.student = Noise(gates=stream("student-gates"), dropout=stream("student-dropout"))
        self.teacher = Noise(gates=stream("teacher-gates"), dropout=stream("teacher-dropout"))

        self.modules = stream_seed(seed, "modules", epoch, sharing.part[0])

    @contextmanager
    def module_noise(self) -> Iterator[None]:
        """Seed torch's default generator for a while: a network brought from elsewhere draws its dropout and stochastic
        depth from there."""
        with torch.random.fork_rng():
            torch.manual_seed(self.modules)
            yield

    @property
    def drawn_in_a_step(self) -> list[torch.Generator]:
        """All but the order's, which is drawn once an epoch."""
        noises = (self.student.gates, self.student.dropout, self.teacher.gates, self.teacher.dropout)
        return [self.augmentation, *(generator for generator in noises if generator is not None)]
