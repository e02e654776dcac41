"""Matching cost after training: shift the decision thresholds until the test rule's mean cost meets a budget.

The rate a network shows while training, under Gumbel noise, is not the rate of its arg-max (protocol, 3). One number is
shifted, `net.decision_shift`: it is added to each option's logit in proportion to the option's cost, so it works for
any number of options. Training images only; no label is read.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from spnet.data import Augmentation, Source, augment, ordered_batches
from spnet.errors import UserError, check_share
from spnet.inference.evaluate import Forward
from spnet.network.dynamic import DynamicNetwork

S = TypeVar("S", bound=Source)
SHIFT_LIMIT = 64.0
"""Router logits differ by a few units; beyond this every block runs, or none."""
CLOSE = 0.02
"""A budget is met within 2 %: only so are two networks compared at one cost (protocol, 4)."""


def spread(split: S, count: int) -> S:
    """`count` images evenly spaced over the split, or all of fewer: a folder's images lie sorted by class."""
    return split.select(spread_indices(len(split), count))


def spread_indices(size: int, count: int) -> Tensor:
    """`count` of the numbers 0 ... size - 1, evenly spaced and ascending; all of them if there are fewer."""
    count = min(count, size)
    return torch.arange(count) * size // max(count, 1)


@torch.no_grad()
def mean_cost(net: DynamicNetwork, split: Source, batch_size: int = 256, forward: Forward | None = None) -> float:
    """Mean MACs over `split`, as a share of the static cost.

    Args:
        forward: images -> trace; the test rule to the last stage, without stage heads, when left out.
    """
    run = forward or partial(net, heads=False)
    total = sum(run(images).macs.double().sum().item() for images, _ in ordered_batches(split, batch_size))
    return total / len(split) / net.static_macs


class Threshold(Protocol):
    """Whose threshold is searched: a network's (`NetworkThreshold`) or an engine's own."""

    def read(self) -> Any: ...

    def move(self, shift: Any) -> None:
        """Set it: to a number, or to what `read` returned."""
        ...


class NetworkThreshold:
    """`net.decision_shift`, which is saved with the weights."""

    def __init__(self, net: DynamicNetwork) -> None:
        self.net = net

    def read(self) -> Tensor:
        return self.net.decision_shift.clone()

    def move(self, shift: Tensor | float) -> None:
        self.net.decision_shift.fill_(shift)


@contextmanager
def kept_on_failure(threshold: Threshold) -> Iterator[None]:
    """A search that fails or is interrupted leaves the threshold as it was."""
    before = threshold.read()
    try:
        yield
    except BaseException:
        threshold.move(before)
        raise


@torch.no_grad()
def calibrate(
    net: DynamicNetwork,
    split: Source,
    budget: float,
    *,
    forward: Forward | None = None,
    threshold: Threshold | None = None,
    tolerance: float = 0.002,
    steps: int = 24,
) -> float:
    """Set the threshold so that the mean cost on `split` is `budget` (a share of the static cost); return that cost.

    Regula falsi between two shifts that enclose the budget, the Illinois way (an end that stays twice counts half), or
    their middle where that gains nothing; cost is all but monotonous in the shift (a decision changes the features that
    later ones read). Half a dozen passes over `split`, as a rule.

    Args:
        forward: what runs the images, as in `mean_cost`; it must read `threshold`.
        threshold: what is moved; `net.decision_shift` when left out.

    Raises:
        UserError: the network has no routers, or no shift comes within 2 % of the budget; the threshold is then as
            before.
    """
    if not any(net.gated):
        raise UserError("a static network has no decisions to calibrate: choose a dynamic method, or drop the budget.")
    if not len(split):
        raise UserError("there are no images to calibrate on: give a few hundred.")
    check_share("budget", budget)
    net.eval()
    threshold = threshold or NetworkThreshold(net)

    def cost_at(shift: float) -> float:
        threshold.move(shift)
        return mean_cost(net, split, forward=forward)

    with kept_on_failure(threshold):
        shift, cost = _search(cost_at, budget, tolerance, steps)
    threshold.move(shift)
    return cost


def _search(cost_at: Callable[[float], float], budget: float, tolerance: float, steps: int) -> tuple[float, float]:
    """The shift that `calibrate` is after, and its cost."""
    best = (float("inf"), 0.0, 0.0)

    def excess(shift: float) -> float:
        """Mean cost at `shift` over the budget."""
        nonlocal best
        cost = cost_at(shift)
        best = min(best, (abs(cost - budget), shift, cost))
        return cost - budget

    near, far = 0.0, 0.0
    near_excess = far_excess = excess(0.0)
    while near_excess * far_excess > 0 and abs(far) < SHIFT_LIMIT:
        near, near_excess = far, far_excess
        far = 2 * far or math.copysign(1.0, -near_excess)
        far_excess = excess(far)
    if near_excess * far_excess > 0 and best[0] > tolerance * budget:
        ends = [excess(shift) + budget for shift in (-SHIFT_LIMIT, SHIFT_LIMIT)]
        raise UserError(
            f"budget {budget} is out of reach: this network costs {ends[0]:.3f} to {ends[1]:.3f} of its static cost."
        )
    for _ in range(steps):
        if best[0] <= tolerance * budget or near_excess == far_excess:
            break
        middle = (near * far_excess - far * near_excess) / (far_excess - near_excess)
        if not min(near, far) < middle < max(near, far):
            middle = (near + far) / 2
        middle_excess = excess(middle)
        if middle_excess * far_excess < 0:
            near, near_excess = far, far_excess
        else:
            near_excess /= 2
        far, far_excess = middle, middle_excess
    if best[0] > CLOSE * budget:  # many decisions flip at one shift: no cost lies between
        raise UserError(f"budget {budget} is out of reach: the nearest cost a threshold gives is {best[2]:.3f}.")
    return best[1], best[2]


@torch.no_grad()
def reestimate_batch_norm(
    net: DynamicNetwork, split: Source, augmentation: Augmentation | None = None, batch_size: int = 256
) -> None:
    """Replace the backbone's batch-norm statistics by those of `split` under test-time paths; labels unused.

    The mean over the batches, each weighed by its images; executed and skipped samples alike, as in training.

    Args:
        augmentation: the one of the training. Images whose edges were never shifted to zeros have other statistics than
            the weights were trained with: leaving it out cost the shipped network 3 points with every block run.
    """
    net.eval()
    generator = torch.Generator(device=split.labels.device).manual_seed(0)
    seen = 0
    with _averaging(net.backbone) as norms:
        for images, _ in ordered_batches(split, batch_size):
            seen += len(images)
            for norm in norms:
                norm.momentum = len(images) / seen
            net(images if augmentation is None else augment(images, augmentation, generator), heads=False)


@contextmanager
def _averaging(module: nn.Module) -> Iterator[list[nn.BatchNorm2d]]:
    """The module's batch norms, forgetful and collecting until the block ends."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    try:
        yield norms
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.eval()
