"""The static network in 8 bits, for the rivals that run it, and what they lose by that on test images."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from spnet.bench.isolated import Isolated
from spnet.bench.rivals import RIVALS
from spnet.data import Dataset, Source, ordered_batches
from spnet.inference.calibrate import spread
from spnet.network.dynamic import DynamicNetwork

EQUAL = 0.3
"""Points of accuracy on the test images that int8 may lose and still count as equal."""
JUDGED = 10_000
"""Test images that it is judged on, where there are more."""
REFERENCE = "onnx-intra"
"""Runs the network in fp32."""
BATCH = 50


@dataclass(frozen=True)
class Int8:
    """The static network in QDQ form, and what is known about it.

    Attributes:
        model: an ONNX file.
        images: test images that it was judged on; 0 without data.
        accuracy: in percent, of each rival that runs it and of fp32 (`REFERENCE`).
    """

    model: bytes
    images: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)

    def equal(self, name: str) -> bool:
        """Whether this rival counts as equally accurate: fp32 does; int8 does where it was judged so."""
        if not RIVALS[name].int8:
            return True
        return name in self.accuracy and self.accuracy[name] >= self.accuracy[REFERENCE] - EQUAL

    def record(self, name: str) -> dict[str, object]:
        """What stands beside the times of a rival."""
        if not RIVALS[name].int8:
            return {"precision": "fp32"}
        facts = {"precision": "int8", "equal": self.equal(name)}
        if name not in self.accuracy:
            return {**facts, "accuracy": None}
        return {
            **facts,
            "accuracy": self.accuracy[name],
            "accuracy_fp32": self.accuracy[REFERENCE],
            "test_images": self.images,
        }


def quantise(
    net: DynamicNetwork,
    names: Sequence[str],
    images: np.ndarray,
    data: Dataset | None,
) -> Int8:
    """The network for the int8 rivals among `names`: calibrated on training images and judged on test images.

    Args:
        images: (M, C, H, W) normalised float32, calibrated on where there are no data; nothing is judged then.
    """
    from spnet.inference.runtimes.onnx.network import path_model
    from spnet.inference.runtimes.onnx.quantise import calibration_images, quantised

    chosen = calibration_images(net, images if data is None else data.train)
    model = quantised(path_model(net), chosen).SerializeToString()
    if data is None:
        return Int8(model)
    test = spread(data.test, JUDGED)
    return Int8(model, len(test), _judge(net, [REFERENCE, *names], model, test))


def _judge(net: DynamicNetwork, names: Sequence[str], model: bytes, test: Source) -> dict[str, float]:
    """Percent of the test images that each rival classifies rightly."""
    right = dict.fromkeys(names, 0)
    with ExitStack() as stack:
        blank = np.zeros((BATCH, *net.input_shape), np.float32)
        workers = {
            name: stack.enter_context(Isolated(name, net, threads=1, batch=BATCH, images=blank, int8=model))
            for name in names
        }
        for shown, labels in ordered_batches(test, BATCH):
            x = net.prepare(shown).float().numpy()
            full = np.concatenate([x, blank[len(x) :]])  # some rivals take batches of one size
            for name, worker in workers.items():
                right[name] += int((worker.run(full)[: len(x)].argmax(1) == labels.numpy()).sum())
    return {name: 100 * count / len(test) for name, count in right.items()}
