"""What a training starts with: the method and its network on the device, ready for the first step."""

from pathlib import Path

import torch

from spnet.build import build_network, create_method
from spnet.data import Dataset
from spnet.dynamic import DynamicNetwork
from spnet.errors import UserError
from spnet.executors.compiled import compiled
from spnet.methods.base import Method, Phase
from spnet.training import checkpoint
from spnet.training.config import RunConfig, TrainingConfig
from spnet.training.devices import Place


def build(
    config: RunConfig, dataset: Dataset, device: torch.device, init: Path | None = None
) -> tuple[Method, DynamicNetwork]:
    """The method and its network as a training starts with them: weights drawn or taken over, on the device."""
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
        checkpoint.initialise(net, init)
    net = net.to(device)
    if training.channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if training.compile:
        net.dense = compiled(training.compile)
    method.attach(net)
    method.state.to(device)
    return method, net


def refuse_capture(training: TrainingConfig, phases: list[Phase], place: Place) -> None:
    """Raise `UserError` where a step cannot be replayed."""
    if place.device.type != "cuda" or place.world_size > 1:
        raise UserError("capture replays CUDA graphs on one device: drop it here, or train on one CUDA device.")
    for phase in phases:
        if not phase.capturable or (phase.optimizer or training.main_optimizer()).name != "sgd":
            raise UserError(f"the steps of phase '{phase.name}' cannot be replayed: drop capture.")


def refuse_sharing(batch_size: int, place: Place, time_limit: float | None) -> None:
    """Raise `UserError` for what several processes cannot do together."""
    if place.world_size == 1:
        return
    if batch_size % place.world_size or batch_size < 2 * place.world_size:
        raise UserError(
            f"batch_size {batch_size} cannot be shared by {place.world_size} processes: take a multiple of that, and "
            "two images for each."
        )
    if time_limit is not None:
        raise UserError("a time limit needs one process: several would stop at different steps.")
