"""What 8 bits cost in accuracy, and what they win in time on this machine: told beside every int8 export."""

from dataclasses import dataclass
from statistics import median

import numpy as np
from torch import Tensor

from spnet.bench.latency import time_calls
from spnet.data import Source, ordered_batches
from spnet.inference.runtimes.onnx.executor import OnnxExecutor, StaticExecutor
from spnet.inference.runtimes.onnx.int8 import Quantisation
from spnet.inference.runtimes.onnx.network import path_model
from spnet.network.dynamic import DynamicNetwork
from spnet.progress import counted

TIMED = 16
"""Single images that are timed."""
ROUNDS, SECONDS = 7, 0.1
PAYS = 1.03
"""A speed-up from which on int8 counts as faster."""


@dataclass(frozen=True)
class Int8Report:
    """Of one network in both precisions, on the same images.

    Attributes:
        calibrated_on: training images that set the scales.
        tested_on: test images; accuracies are percent of them.
        speed_up: over fp32, for single images on one thread: the median of interleaved rounds, in processor time.
    """

    bits: int
    calibrated_on: int
    tested_on: int
    accuracy: float
    accuracy_fp32: float
    speed_up: float

    def __str__(self) -> str:
        slower = "" if self.speed_up >= PAYS else ": no faster on this machine, so fp32 is the better choice here"
        return (
            f"int8 ({self.bits}-bit weights, calibrated on {self.calibrated_on} training images): "
            f"{self.accuracy:.2f} % of all {self.tested_on} test images right, fp32 {self.accuracy_fp32:.2f} %; "
            f"{self.speed_up:.2f}x the speed of fp32 for single images{slower}"
        )


def report(net: DynamicNetwork, int8: Quantisation, test: Source, *, path: Tensor | None = None) -> Int8Report:
    """Run all of `test` in both precisions, down `path` (N,) or by own decisions, and time a few single images."""
    runs = [_runner(net, form, path) for form in (int8, None)]
    right = np.zeros(2)
    timed: list[np.ndarray] = []
    for images, labels in ordered_batches(test, 64):
        x = net.prepare(images).float().numpy()
        timed = timed or [x[k : k + 1] for k in range(min(TIMED, len(x)))]
        right += [(run(x).argmax(1) == labels.numpy()).sum() for run in runs]
    calls = [[lambda x=x, run=run: run(x) for x in timed] for run in runs]
    for some in calls:
        some[0]()
    turns = counted(range(ROUNDS), "rounds timed", ROUNDS)
    rounds = [[time_calls(some, SECONDS).cpu_seconds for some in calls] for _ in turns]
    found = 100 * right / len(test)
    speed_up = median(full / short for short, full in rounds)
    return Int8Report(int8.bits, int8.calibrated_on, len(test), float(found[0]), float(found[1]), speed_up)


def _runner(net: DynamicNetwork, int8: Quantisation | None, path: Tensor | None):
    """Images (B, C, H, W) normalised float32 -> logits (B, classes), on one thread."""
    if path is not None:
        return StaticExecutor(net, model=path_model(net, path.tolist(), int8=int8).SerializeToString()).run
    executor = OnnxExecutor(net, int8=int8)
    return lambda images: executor.arrays(images)[0]
