"""Training steps side by side: are two ways to compute a step the same step, and how long does each take?

The step is the loop's own (spnet.training.step), augmentation and book-keeping included, on random images.
"""

import contextlib
import time
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spnet.data import Augmentation, Dataset, Split
from spnet.runs.config import RunConfig
from spnet.training.capture import WARM, CapturedStep, capturable
from spnet.training.devices import resolve_precision
from spnet.training.schedule import build_optimizer, set_rate
from spnet.training.start import build
from spnet.training.step import TrainingStep
from spnet.training.streams import Streams


def random_images(count: int, size: int, classes: int = 10) -> Dataset:
    """Colour noise in place of a data set."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    split = Split(pixels, torch.arange(count) % classes)
    names = tuple(str(label) for label in range(classes))
    return Dataset("noise", split, split, names, (0.5,) * 3, (0.25,) * 3, Augmentation())


class Trial:
    """A fresh network in the last phase of its method, ready to take steps; settings `compile` and `capture` count.

    Two trials of configs that differ in these alone start from the same weights and draw the same numbers.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, device: torch.device) -> None:
        training = config.training
        self.device = device
        self.capture = training.capture
        self.batch_size = training.batch_size
        self.split = dataset.train.to(device)
        self.method, self.net = build(config, dataset, device)
        phase = self.method.phases(training.epochs)[-1]
        if phase.on_start is not None:
            phase.on_start(self.net)
        optimizer_config = phase.optimizer or training.main_optimizer()
        trainable = [p for name, p in self.net.named_parameters() if phase.trainable(name)]
        self.optimizer = build_optimizer(optimizer_config, trainable)
        self.streams = Streams(training.seed, 0, device)
        self.step = TrainingStep(
            self.net,
            self.optimizer,
            phase,
            optimizer_config,
            view=self.split.view(dataset.augmentation, self.streams.augmentation, phase.copies),
            streams=self.streams,
            epoch=0,
            precision=resolve_precision(training.precision, device),
        )
        self.rate = training.lr

    def take(self, steps: int, warm: int = WARM + 1) -> float:
        """Take `warm` steps, which an epoch with `capture` needs to record, then `steps` more; returns the milliseconds
        of one of these."""
        batch = self.split.select(range(self.batch_size)).in_memory()
        images, labels = batch.images, batch.labels
        around = capturable(self.optimizer, self.device) if self.capture else contextlib.nullcontext()
        with around:
            set_rate(self.optimizer, self.rate)
            run = CapturedStep(self.step, self.streams.drawn_in_a_step) if self.capture else self.step
            start = 0.0
            for index in range(warm + steps):
                if index == warm:
                    self._wait()
                    start = time.perf_counter()
                run(images, labels)
                self.step.tally.count(self.batch_size, self.rate)
            self._wait()
            return 1e3 * (time.perf_counter() - start) / steps

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @cached_property
    def losses(self) -> dict[str, float]:
        """Mean of every loss term over the steps taken."""
        return self.step.tally.means()["losses"]

    @property
    def gradients(self) -> Tensor:
        """Those of the last step, in one row."""
        return torch.cat([p.grad.double().flatten() for p in self.step.parameters if p.grad is not None])

    @property
    def weights(self) -> Tensor:
        """Weights, statistics and what the method holds (a teacher), in one row."""
        state = {**self.net.state_dict(), **self.method.state.state_dict()}
        return torch.cat([value.double().flatten() for value in state.values() if value.is_floating_point()])


@dataclass(frozen=True)
class Agreement:
    """Differences relative to the size of what is compared."""

    losses: float
    gradients: float
    weights: float

    def __str__(self) -> str:
        return f"losses differ by {self.losses:.1e}, gradients {self.gradients:.1e}, weights {self.weights:.1e}"

    @classmethod
    def between(cls, a: Trial, b: Trial) -> "Agreement":
        if a.losses.keys() != b.losses.keys():
            raise ValueError(f"the trials have different losses: {sorted(a.losses)} and {sorted(b.losses)}.")
        losses = max(abs(a.losses[name] - value) / max(abs(value), 1e-12) for name, value in b.losses.items())
        return cls(losses, _distance(a.gradients, b.gradients), _distance(a.weights, b.weights))


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def interleaved(trials: dict[str, Trial], rounds: int, steps: int) -> dict[str, list[float]]:
    """Milliseconds of a step of each trial, once a round."""
    times: dict[str, list[float]] = {name: [] for name in trials}
    for _ in range(rounds):
        for name, trial in trials.items():
            times[name].append(trial.take(steps))
    return times
