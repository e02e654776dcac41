"""How long runs will take on this machine: multiply-adds to train, over the speed of a static step measured here."""

import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from spnet.backbones import create_backbone
from spnet.reproduction.plan import student_passes
from spnet.runs.config import RunConfig
from spnet.training.devices import autocast, resolve_precision

STEP = {"static": 1.0, "spnet": 1.6}
"""A training step over the static one's (docs/archive.md); other methods, alone: 1.2; in SP-Net: 1.6."""
EVALUATION = 1.35
"""Calibration and the passes over the test set, on top."""


def seconds(runs: Sequence[RunConfig], images: dict[str, int]) -> float:
    """Seconds of all runs, one after another, on the threads this process uses.

    Args:
        images: training images of each data set, by name.
    """
    per_mac = _seconds_per_mac()
    return sum(_macs(run, images) for run in runs) * per_mac * EVALUATION


def _macs(run: RunConfig, images: dict[str, int]) -> float:
    """Multiply-adds of the forward passes of a training, weighed by what a step costs."""
    training = run.training
    size = (1, 8, 8) if run.data.startswith("digits") else (3, 32, 32)
    plain = create_backbone(run.backbone, num_classes=10, input_shape=size).static_macs
    step = STEP["spnet"] if "spnet" in (run.method, *run.wrapper.split("+")) else STEP.get(run.method, 1.2)
    return plain * step * student_passes(run) * (training.subset or images[run.data_name])


def _seconds_per_mac() -> float:
    """Of a forward and backward pass of ResNet-20 in the precision a run takes here: the fastest of eight steps,
    for other work on the machine only adds."""
    device = torch.device("cpu")
    precision = resolve_precision("auto", device)
    net = create_backbone("resnet20", num_classes=10)
    x, labels = torch.randn(64, 3, 32, 32), torch.zeros(64, dtype=torch.int64)
    x = x.to(memory_format=torch.channels_last)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        with autocast(precision, device):
            loss = F.cross_entropy(net(x), labels)
        loss.backward()
        times.append(time.perf_counter() - start)
    return min(times) / (64 * net.static_macs)
