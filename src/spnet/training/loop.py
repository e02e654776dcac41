"""The epochs of a run, in one of its processes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spnet.data import Augmentation, Dataset
from spnet.methods.base import Method, Phase
from spnet.network.dynamic import DynamicNetwork
from spnet.runs import folder
from spnet.runs.config import RunConfig
from spnet.runs.resumed import check_progress, check_tensors, fit_optimizer
from spnet.training.capture import cuda_graph
from spnet.training.devices import resolve_precision
from spnet.training.distributed import Place
from spnet.training.epoch import check_weights, train_epoch
from spnet.training.parts import Parts
from spnet.training.schedule import build_optimizer
from spnet.training.sharing import Sharing, sharing_of
from spnet.training.start import build
from spnet.training.streams import Streams
from spnet.training.tally import Tally


@dataclass
class Loop:
    """`optimizer` is that of the last epoch; `done` is how many epochs are."""

    config: RunConfig
    place: Place
    parts: Parts
    method: Method
    net: DynamicNetwork
    augmentation: Augmentation | None
    phases: list[Phase]
    precision: str
    sharing: Sharing
    done: int = 0
    optimizer: torch.optim.Optimizer | None = None

    @classmethod
    def of(
        cls,
        config: RunConfig,
        dataset: Dataset,
        place: Place,
        init: Path | DynamicNetwork | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> "Loop":
        """A run before its first epoch; arguments as of `spnet.training.fit.fit`."""
        training = config.training
        parts = Parts.of(dataset, config).to(place.device)
        method, net = build(config, dataset, place.device, init, note)
        augmentation = dataset.augmentation if training.augment else None
        precision = resolve_precision(training.precision, place.device)
        phases = method.phases(training.epochs)
        sharing = sharing_of(place, training.batch_size, training.sync_batch_norm)
        return cls(config, place, parts, method, net, augmentation, phases, precision, sharing)

    @property
    def epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

    def go_to(self, state: dict[str, Any], source: Path) -> None:
        """Continue from a state read from the file `source`; `UserError` for one that this run cannot have left."""
        check_tensors(state, source)
        folder.fit_state(self.net, state["net"], source)
        folder.fit_state(self.method.state, state["method"], source)
        check_progress(state, self.config, source)
        self.done = state["epoch"]
        if self.done < self.epochs:
            phase, epoch_in_phase = _at(self.phases, self.done)
            if epoch_in_phase > 0:
                self.optimizer = self._optimizer(phase)
                fit_optimizer(self.optimizer, state["optimizer"], source)

    def train(
        self,
        out_of_time: Callable[[], bool] = lambda: False,
        moved: Callable[[float], None] = lambda epochs: None,
    ) -> Iterator[tuple[Phase, Tally]]:
        """Train the epochs that are left, one at each turn. Ends early in an epoch that is cut short.

        Raises:
            DivergedError: a loss or weight was not finite.
        """
        training = self.config.training
        for epoch in range(self.done, self.epochs):
            phase, epoch_in_phase = _at(self.phases, epoch)
            chosen = phase.optimizer or training.main_optimizer()
            if epoch_in_phase == 0 or self.optimizer is None:
                if epoch_in_phase == 0 and phase.on_start is not None:
                    phase.on_start(self.net)
                self.optimizer = self._optimizer(phase)
            with self.sharing.passes(self.net, self.method.state):
                tally = train_epoch(
                    self.net,
                    self.optimizer,
                    phase,
                    chosen,
                    self.parts.train,
                    batch_size=training.batch_size,
                    augmentation=self.augmentation,
                    streams=Streams(training.seed, epoch, self.place.device, self.sharing),
                    epoch_in_phase=epoch_in_phase,
                    precision=self.precision,
                    sharing=self.sharing,
                    record=cuda_graph if training.capture else None,
                    out_of_time=out_of_time,
                    moved=lambda share, before=epoch: moved(before + share),
                )
            if tally is None:
                return
            tally.check()
            check_weights(self.net)
            self.done = epoch + 1
            yield phase, tally

    def _optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        trainable = [p for name, p in self.net.named_parameters() if phase.trainable(name)]
        return build_optimizer(phase.optimizer or self.config.training.main_optimizer(), trainable)


def _at(phases: Sequence[Phase], epoch: int) -> tuple[Phase, int]:
    """The phase that an epoch of the run belongs to, and its number in there."""
    for phase in phases:
        if epoch < phase.epochs:
            return phase, epoch
        epoch -= phase.epochs
    raise IndexError("the run has fewer epochs")
