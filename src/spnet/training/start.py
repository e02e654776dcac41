"""What a training starts with: the method and its network on the device, ready for the first step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from spnet.backbones.sources import normalisation
from spnet.build import build_network, create_method
from spnet.data import Dataset
from spnet.errors import UserError
from spnet.inference.runtimes.compiled import compiled
from spnet.methods.base import Method, Phase
from spnet.network.dynamic import DynamicNetwork
from spnet.runs.config import RunConfig, TrainingConfig
from spnet.training.initialise import initialise


def normalised_for(backbone: str, dataset: Dataset) -> Dataset:
    """The data, normalised as the pretrained weights of this backbone expect it; as they are where it has none."""
    own = normalisation(backbone)
    if own is None or len(own[0]) != dataset.in_channels:
        return dataset
    return replace(dataset, mean=own[0], std=own[1])


def build(
    config: RunConfig,
    dataset: Dataset,
    device: torch.device,
    init: Path | DynamicNetwork | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> tuple[Method, DynamicNetwork]:
    """The method and its network as a training starts with them: weights drawn or taken over, on the device.

    `note`: told what was taken over, one line.
    """
    training = config.training
    method = create_method(config.method, config.wrapper, config.method_settings)
    net = build_network(
        method,
        config.backbone,
        num_classes=dataset.num_classes,
        input_shape=(dataset.in_channels, *dataset.image_size),
        mean=dataset.mean,
        std=dataset.std,
        seed=training.seed,
    )
    if init is not None:
        note(initialise(net, init, list(dataset.classes)))
    net = net.to(device)
    if training.channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if training.compile:
        net.dense = compiled(training.compile)
    method.attach(net)
    method.state.to(device)
    return method, net


def refuse(config: RunConfig, net: DynamicNetwork, phases: list[Phase], devices: int, time_limit: float | None) -> None:
    """Raise `UserError` for what cannot be done, before anything is written and any process started."""
    training = config.training
    if (training.budget or training.more_budgets) and not any(net.gated):
        raise UserError("a static network has no decisions to calibrate: choose a dynamic method, or drop the budget.")
    if training.capture:
        _refuse_capture(training, phases, devices, next(net.parameters()).device)
    refuse_sharing(training, devices, time_limit)


def _refuse_capture(training: TrainingConfig, phases: list[Phase], devices: int, device: torch.device) -> None:
    """Raise `UserError` where a step cannot be replayed."""
    if device.type != "cuda" or devices > 1:
        raise UserError("capture replays CUDA graphs on one device: drop it here, or train on one CUDA device.")
    for phase in phases:
        if not phase.capturable or (phase.optimizer or training.main_optimizer()).name != "sgd":
            raise UserError(f"the steps of phase '{phase.name}' cannot be replayed: drop capture.")


def refuse_sharing(training: TrainingConfig, devices: int, time_limit: float | None) -> None:
    """Raise `UserError` for what several processes cannot do together."""
    if devices == 1:
        return
    each, words = (
        (1, "one image") if training.sync_batch_norm else (2, "two images, whose statistics batch norm takes,")
    )
    if training.batch_size < each * devices:
        raise UserError(
            f"batch_size {training.batch_size} cannot be shared by {devices} processes: take {words} for each at "
            "least, or fewer processes."
        )
    if training.compile and training.sync_batch_norm:
        raise UserError("compiled blocks cannot add up over processes: set sync_batch_norm false, or drop compile.")
    if time_limit is not None:
        raise UserError("a time limit needs one process: several would stop at different steps.")


def refuse_other_processes(training: TrainingConfig, before: int, now: int) -> None:
    """Raise `UserError` where a run that goes on with another number of processes would be another run."""
    if not training.sync_batch_norm and before not in (0, now):
        raise UserError(
            f"this run was begun by {before} processes with sync_batch_norm false, so its batch norms depend on their "
            f"number: go on with {before}, not {now}."
        )
