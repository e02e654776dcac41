"""One epoch of training: batches, rates, steps. No host sync inside."""

import contextlib
from collections.abc import Callable

import torch
from torch import nn

from spnet.data import Augmentation, Source, epoch_batches
from spnet.errors import DivergedError
from spnet.methods.base import Optimizer, Phase
from spnet.network.dynamic import DynamicNetwork
from spnet.training.capture import CapturedStep, Record, capturable
from spnet.training.schedule import learning_rate, set_rate
from spnet.training.sharing import ALONE, Sharing
from spnet.training.step import TrainingStep
from spnet.training.streams import Streams
from spnet.training.tally import REMEDY, Tally


def train_epoch(
    net: DynamicNetwork,
    optimizer: torch.optim.Optimizer,
    phase: Phase,
    optimizer_config: Optimizer,
    split: Source,
    *,
    batch_size: int,
    augmentation: Augmentation | None,
    streams: Streams,
    epoch_in_phase: int,
    precision: str,
    sharing: Sharing = ALONE,
    record: Record | None = None,
    out_of_time: Callable[[], bool] = lambda: False,
    moved: Callable[[float], None] = lambda share: None,
) -> Tally | None:
    """Train one epoch in place. Returns its sums, or None when `out_of_time()` cut it short (the caller discards
    it).

    Args:
        sharing: how processes share every batch.
        record: how to capture the step; None takes every step as it is.
        moved: called after each step with the share of the epoch that is done.
    """
    step = TrainingStep(
        net,
        optimizer,
        phase,
        optimizer_config,
        view=split.view(augmentation, streams.augmentation, phase.copies),
        streams=streams,
        epoch=epoch_in_phase,
        precision=precision,
        sharing=sharing,
    )
    tally = step.tally
    take = step if record is None else CapturedStep(step, streams.drawn_in_a_step, record)
    around = contextlib.nullcontext() if record is None else capturable(optimizer, net.mean.device)
    per_epoch = max(1, len(split) // batch_size)
    total = per_epoch * phase.epochs
    with around, streams.module_noise():
        batches = epoch_batches(
            split,
            batch_size,
            streams.order,
            part=sharing.part,
            copies=phase.copies,
            augmented=augmentation is not None,
        )
        for index, (images, labels) in enumerate(batches):
            rate = learning_rate(optimizer_config, (epoch_in_phase * per_epoch + index) / total)
            set_rate(optimizer, rate)
            if index == per_epoch - 1:
                step(images, labels, shares=True)
            else:
                take(images, labels)
            tally.count(batch_size * phase.copies, rate)
            moved((index + 1) / per_epoch)
            if out_of_time():
                return None
    return tally


def check_weights(net: nn.Module) -> None:
    """Raise `DivergedError` when the epoch's last step, whose loss was still finite, ruined a weight or statistic."""
    state = net.state_dict()
    fine = torch.stack([value.isfinite().all() for value in state.values()]).tolist()
    if not all(fine):
        name = list(state)[fine.index(False)]
        raise DivergedError(f"'{name}' is not finite after this epoch's last step. {REMEDY}")
