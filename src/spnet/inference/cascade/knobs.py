"""All knobs of a cascade, set together from images without labels: confidences, and the members' own thresholds.

Every member runs all images at a few thresholds, once. From these tables the cost of any setting, and what it is worth,
is read off without running anything again (`spnet.inference.cascade.plan`).

**The rule**: of all settings that meet the budget, the one whose answers agree most with the reference, which is the
last member, its probabilities averaged over its thresholds: the mean probability that the reference gives to the class
that is answered. A member leaves the threshold it came with, where its training put it, only for a gain beyond chance
on these images. Limits: where the reference errs, the rule follows it, and it sees no gain where a small member is
right and the reference wrong; on images that the members were trained on, the reference is surer than it should be.

Compared on 2,048 training images of CIFAR-10, calibrated on three quarters and counted on the fourth (a ResNet-8 of 8
epochs, then the shipped SP-Net; budgets of 0.35 to 0.8): this rule, and the expected confidence of the answer itself,
come within 0.4 points of the choice by labels. Agreement with the last member's full path alone loses up to 1.3, for
that path agrees with itself whatever it costs; its probability of the answer loses up to 1.1 from 0.7 on. The expected
confidence was left because it believes an over-confident member.

Shapes: N images, K classes, M members; a member has a few `Ran`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from spnet.inference.cascade import sureness
from spnet.network.dynamic import DynamicNetwork
from spnet.network.trace import Trace
from spnet.progress import counted

RATES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Share of decisions to run a block, at the thresholds that are tried beside a member's own."""


@dataclass(frozen=True)
class Ran:
    """A member at one threshold, on all images.

    Attributes:
        shift: the threshold.
        sure: (N,) as `sureness`. macs: (N,) multiply-adds.
        worth: (N,) of its answers: the probability that the reference gives to them.
        cost: (N,) in whatever unit the budget has.
        own: this is the threshold the member came with.
    """

    shift: float
    sure: np.ndarray
    macs: np.ndarray
    worth: np.ndarray
    cost: np.ndarray
    own: bool = False


Run = Callable[[Tensor, float], Trace]
"""(uint8 images (B, C, H, W), threshold) -> trace, of a member."""


def tables(networks: Sequence[DynamicNetwork], runs: Sequence[Run], images: Tensor) -> list[list[Ran]]:
    """Of each member, from its cheapest threshold to its dearest; cost in multiply-adds."""
    found: list[list[tuple[Ran, np.ndarray]]] = []
    members = counted(zip(networks, runs, strict=True), "members calibrated", len(networks))
    for net, run in members:
        own = float(net.decision_shift)
        shifts = thresholds(net, run, images)
        rows = [_ran(run, images, shift, own) for shift in counted(shifts, "thresholds tried", len(shifts))]
        found.append(sorted(rows, key=lambda row: row[0].macs.mean()))
    reference = np.mean([_softmax(logits) for _, logits in found[-1]], 0)
    return [
        [replace(ran, worth=np.take_along_axis(reference, logits.argmax(1)[:, None], 1)[:, 0]) for ran, logits in rows]
        for rows in found
    ]


def thresholds(net: DynamicNetwork, run: Run, images: Tensor) -> list[float]:
    """The member's own threshold, and those at which so many of its decisions (`RATES`) are to run a block."""
    own = float(net.decision_shift)
    if not any(net.gated):
        return [own]
    margins = []
    for part in _batches(images):
        margins += [(logits[:, 0] - logits[:, -1]).flatten() for logits in run(part, own).router_logits]
    needed = torch.cat(margins).double().cpu().numpy()  # the threshold from which on a decision is to run
    return sorted({own, *(float(np.quantile(needed, rate)) for rate in RATES)})


def _ran(run: Run, images: Tensor, shift: float, own: float) -> tuple[Ran, np.ndarray]:
    """And its logits (N, K)."""
    traces = [run(part, shift) for part in _batches(images)]
    logits = torch.cat([trace.logits.double().cpu() for trace in traces])
    macs = torch.cat([trace.macs.double().cpu() for trace in traces]).numpy()
    ran = Ran(shift, sureness(logits), macs, worth=np.zeros(len(macs)), cost=macs, own=shift == own)
    return ran, logits.numpy()


def _batches(images: Tensor, size: int = 256) -> Iterator[Tensor]:
    return counted(images.split(size), "images", len(images), len)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def priced(ran: Ran, price: float) -> Ran:
    """With another cost: `price` is the mean over all images, shared out as the multiply-adds are."""
    return replace(ran, cost=ran.macs * (price / ran.macs.mean()))
