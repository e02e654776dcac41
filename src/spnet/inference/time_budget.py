"""A budget in milliseconds: the decision threshold at which one image takes that long on this machine.

Time is close to linear in the mean cost. So it is measured at the cheapest and at the dearest threshold, then at the
share of the static cost that the line between them promises, and the line is drawn anew between the nearest two until
the time is met.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch
from torch import Tensor

from spnet.bench.latency import percentiles, time_calls
from spnet.data import Split
from spnet.errors import UserError, is_number
from spnet.inference.calibrate import (
    SHIFT_LIMIT,
    NetworkThreshold,
    Threshold,
    calibrate,
    kept_on_failure,
    mean_cost,
    spread_indices,
)
from spnet.inference.evaluate import Forward
from spnet.network.dynamic import DynamicNetwork
from spnet.network.trace import Trace
from spnet.progress import counted

IMAGES = 100
PASSES = 5
WARM_UP = 10
STEPS = 8
TOLERANCE = 0.03
COST_TOLERANCE = 0.01
"""Of a share on the way: nearer than a time can be measured, and it spares passes over the images."""
STATIC = "static"
"""What `Engine.choice` calls the network without routers."""


@dataclass(frozen=True)
class Latency:
    """Wall time of single images, each decided by the network itself.

    Attributes:
        milliseconds_per_image: mean over the images, median over the passes.
        p50, p90, p99: of single images, in milliseconds.
        n: images of a pass.
        passes: made; `clean`: those during which nobody else took the cores, which alone count if there are any.
        threads: to compute with.
        runs: what ran: `branching`, `gathered`, `onnx`, or `static` (the fallback of `auto`).
        budget_ms: the time that was asked for; NaN where none was.
    """

    milliseconds_per_image: float
    p50: float
    p90: float
    p99: float
    n: int
    passes: int
    clean: int
    threads: int
    runs: str
    budget_ms: float = math.nan


def measure(run: Forward, images: Tensor, *, threads: int, runs: str) -> Latency:
    """Time `run` on single images, evenly spaced over `images` (N, C, H, W), after a warm-up."""
    chosen = images[spread_indices(len(images), IMAGES).to(images.device)]
    calls = [partial(_alone, run, image) for image in chosen.split(1)]
    for call in calls[:WARM_UP]:
        call()
    timings = [time_calls(calls, 0.0) for _ in counted(range(PASSES), "passes timed", PASSES)]
    clean = [timing for timing in timings if not timing.contended(threads)]
    kept = clean or timings
    cuts = percentiles([1e3 * seconds for timing in kept for seconds in timing.seconds])
    mean = 1e3 * median(timing.mean for timing in kept)
    return Latency(mean, **cuts, n=len(calls), passes=PASSES, clean=len(clean), threads=threads, runs=runs)


def _alone(run: Forward, image: Tensor) -> Trace:
    trace = run(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)  # a launch is not yet a result
    return trace


@dataclass(frozen=True)
class _Tried:
    """A threshold, the mean cost at it as a share of the static cost, and what was measured there."""

    shift: float
    share: float
    latency: Latency

    @property
    def ms(self) -> float:
        return self.latency.milliseconds_per_image


def calibrate_to_time(
    net: DynamicNetwork,
    split: Split,
    budget_ms: float | str,
    *,
    forward: Forward,
    timed: Callable[[float], Latency],
    threshold: Threshold | None = None,
) -> tuple[float, Latency]:
    """Set the threshold so that an image takes `budget_ms` milliseconds on average; return the mean cost, as a
    share of the static cost, and the time measured there.

    Within 3 %; where thresholds leave a gap around the time asked for, the dearest that was tried below it. If the
    static network is what runs at the dearest threshold and meets the time, nothing has to be skipped: `runs` of the
    latency says `static`, and the cost is 1.

    Args:
        budget_ms: milliseconds, or a text such as "50%": that far from the fastest to the slowest this network takes
            on this machine, as busy as it is now.
        forward: images -> trace, by which the cost is counted; it must read `threshold`.
        threshold: what is moved; `net.decision_shift` when left out.
        timed: mean cost -> latency of what would run at that cost, with the threshold as it stands.

    Raises:
        UserError: no time, no routers, or a time this network does not take here. The threshold is then as before.
    """
    way = way_of(budget_ms)
    if not any(net.gated):
        raise UserError("a static network has no decisions to calibrate: choose a dynamic method, or drop budget_ms.")
    net.eval()
    threshold = threshold or NetworkThreshold(net)
    with kept_on_failure(threshold):
        found = _search(net, split, math.nan if way is not None else float(budget_ms), way, forward, timed, threshold)
    threshold.move(found.shift)
    return 1.0 if found.latency.runs == STATIC else found.share, found.latency


def _search(
    net: DynamicNetwork,
    split: Split,
    budget_ms: float,
    way: float | None,
    forward: Forward,
    timed: Callable[[float], Latency],
    threshold: Threshold,
) -> _Tried:
    def tried(share: float) -> _Tried:
        return _Tried(float(threshold.read()), share, timed(share))

    def end(shift: float) -> _Tried:
        threshold.move(shift)
        return tried(mean_cost(net, split, forward=forward))

    def met(point: _Tried) -> _Tried:
        return replace(point, latency=replace(point.latency, budget_ms=budget_ms))

    low, high = end(-SHIFT_LIMIT), end(SHIFT_LIMIT)
    if way is not None:
        budget_ms = low.ms + way * (high.ms - low.ms)
        if high.ms <= low.ms:  # skipping saves no time here
            return met(high)
    if high.ms <= budget_ms and (high.latency.runs == STATIC or high.ms <= low.ms):
        return met(high)
    if not low.ms * (1 - TOLERANCE) <= budget_ms <= high.ms * (1 + TOLERANCE):
        fast, slow = sorted((low.ms, high.ms))
        raise UserError(
            f"budget_ms {budget_ms:g} is out of reach: this network takes {fast:.3g} to {slow:.3g} ms an image here "
            f"(one at a time, {low.latency.threads} thread(s))."
        )

    def nearest() -> _Tried | None:
        point = min(high, low, key=lambda point: abs(point.ms - budget_ms))
        return point if abs(point.ms - budget_ms) <= TOLERANCE * budget_ms else None

    for _ in range(STEPS):
        if nearest():
            break
        part = min(0.95, max(0.05, (budget_ms - low.ms) / (high.ms - low.ms)))  # a line too far off still moves on
        share = low.share + part * (high.share - low.share)
        point = tried(calibrate(net, split, share, forward=forward, threshold=threshold, tolerance=COST_TOLERANCE))
        if point.share in (low.share, high.share):  # no threshold between the two
            break
        low, high = (point, high) if point.ms <= budget_ms else (low, point)
    return met(nearest() or low)


def way_of(budget_ms: float | str) -> float | None:
    """How far from the fastest to the slowest "50%" is; None for milliseconds. `UserError` for what is no time."""
    if isinstance(budget_ms, str):
        return percent_of(budget_ms)
    if not is_number(budget_ms) or not 0 < budget_ms < math.inf:
        raise UserError(f"budget_ms is a time per image in milliseconds, such as 3.0; not {budget_ms!r:.60}.")
    return None


def percent_of(text: str) -> float:
    """`50%` -> 0.5."""
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else math.nan
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UserError(f"budget_ms is a time per image in milliseconds, such as 3.0, or 0% to 100%; not '{text}'.")
    return share
