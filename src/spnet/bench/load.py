"""Single images under load: how long a request waits for its answer where many come at once.

    spnet bench RUN --load                                  # beside everything else that bench times
    spnet bench RUN --load --batches none --threads 2       # alone, by two workers: half a minute for images of 1 ms

As many workers as `--threads` says, each a thread that calls one engine with one thread inside, answer requests that
come as a Poisson process: half as many, and nine tenths as many, as the static network can answer. Latency runs from
arrival to answer. Both networks get the same arrivals and the same test images, on which the dynamic one decides for
itself. The static one is onnxruntime's, in fp32, its memory bound beforehand.

A round measures what both can answer when all requests are there at once, then both at each load, one after the other;
loads are shares of what was measured in their own round. Latencies of all undisturbed rounds count together. Queues
are empty when a measurement begins; a worker that slept for want of work wakes some 0.05 ms late.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from spnet.bench.bench import check_fit
from spnet.bench.int8 import REFERENCE
from spnet.bench.isolated import Isolated
from spnet.bench.latency import Timing, percentiles
from spnet.bench.rivals import ENGINE
from spnet.bench.serving import poisson
from spnet.inference.cascade import Cascade, Model
from spnet.progress import counted

LOADS = (0.5, 0.9)
"""Arrivals, as shares of what the static network can answer."""
REQUESTS, LONGEST = 400, 15.0
"""Of a measurement: at least so many, unless they take more seconds than that."""
BOUND = 60.0
"""Seconds after which no further round is begun, however many were asked for."""
FIRST = 20
"""Requests that say about how fast a network is."""
STATIC, DYNAMIC = "static", "dynamic"
VARIANTS = {STATIC: REFERENCE, DYNAMIC: ENGINE}


@dataclass(frozen=True)
class Round:
    """Attributes:
    capacity: of each network, requests that were all there at once.
    loads: of each load, requests of each network that came by and by.
    """

    capacity: Mapping[str, Timing]
    loads: Mapping[float, Mapping[str, Timing]]

    def answers_per_second(self, name: str) -> float:
        return _rate(self.capacity[name])

    def contended(self, workers: int) -> bool:
        """Others took cores that the workers needed."""
        timings = [*self.capacity.values(), *(timing for some in self.loads.values() for timing in some.values())]
        return any(timing.contended(workers) for timing in timings)


def under_load(
    net: Model,
    images: np.ndarray,
    workers: int,
    *,
    rounds: int = 9,
    seconds: float = 0.4,
    exit_confidence: float | None = None,
) -> dict[str, Any]:
    """Serve single images by so many workers, the network beside the static one; of a cascade its last member's.

    Args:
        images: (M, C, H, W) normalised float32, which the requests go through again and again.
        rounds, seconds: of a measurement; fewer rounds where they take more than a minute.

    Returns `workers`, `rounds` and how many of them count (`kept`: those undisturbed, or all where none is); `capacity`
    in images a second of `static` and `dynamic`, and their `ratio`; `loads`, each with its share (`load`),
    `arrivals_per_second`, `requests`, and of `static` and `dynamic` the latencies (p50, p90, p99) in ms and the cores
    that it (`cpu`) and everything else (`others`) kept busy.

    Raises:
        UserError: the network skips nothing, or has no ONNX form.
    """
    check_fit(net, exit_confidence)
    nets = {STATIC: net.last if isinstance(net, Cascade) else net, DYNAMIC: net}
    with ExitStack() as stack:
        served = {
            name: stack.enter_context(
                Isolated(variant, nets[name], threads=1, batch=1, images=images, exit_confidence=exit_confidence)
            )
            for name, variant in VARIANTS.items()
        }
        return summary(workers, list(_rounds(served, workers, rounds, seconds)))


def requests(rate: float, seconds: float) -> int:
    """How many that come at `rate` a second make a measurement of about so many seconds."""
    return max(1, round(min(max(REQUESTS, rate * seconds), rate * LONGEST)))


def _rounds(served: Mapping[str, Isolated], workers: int, rounds: int, seconds: float) -> Iterator[Round]:
    at_once = {
        name: requests(_rate(worker.serve(np.zeros(FIRST), workers)), seconds) for name, worker in served.items()
    }
    start = time.monotonic()
    for k in counted(range(rounds), "rounds under load", rounds):
        capacity = {name: worker.serve(np.zeros(at_once[name]), workers) for name, worker in served.items()}
        loads = {}
        for load in LOADS:
            rate = load * _rate(capacity[STATIC])
            arrivals = poisson(rate, requests(rate, seconds), seed=k)
            loads[load] = {name: worker.serve(arrivals, workers) for name, worker in served.items()}
        yield Round(capacity, loads)
        if (time.monotonic() - start) * (k + 2) / (k + 1) > BOUND:
            return


def _rate(at_once: Timing) -> float:
    """Answers a second to requests that were all there at once."""
    return len(at_once.seconds) / max(at_once.seconds)


def summary(workers: int, rounds: Sequence[Round]) -> dict[str, Any]:
    """What the rounds say; see `under_load`."""
    clean = [one for one in rounds if not one.contended(workers)]
    kept = clean or rounds
    capacity = {name: median(one.answers_per_second(name) for one in kept) for name in VARIANTS}
    ratio = median(one.answers_per_second(DYNAMIC) / one.answers_per_second(STATIC) for one in kept)
    loads = []
    for load in LOADS:
        timings = {name: [one.loads[load][name] for one in kept] for name in VARIANTS}
        loads.append(
            {
                "load": load,
                "arrivals_per_second": load * capacity[STATIC],
                "requests": sum(len(timing.seconds) for timing in timings[STATIC]),
                **{name: _figures(some) for name, some in timings.items()},
            }
        )
    return {
        "workers": workers,
        "rounds": len(rounds),
        "kept": len(clean),
        "variants": VARIANTS,
        "capacity": {**capacity, "ratio": ratio},
        "loads": loads,
    }


def _figures(timings: Sequence[Timing]) -> dict[str, float]:
    milliseconds = percentiles([1e3 * seconds for timing in timings for seconds in timing.seconds])
    busy = {"cpu": fmean(timing.cpu for timing in timings), "others": fmean(timing.others for timing in timings)}
    return milliseconds | busy


def describe(record: Mapping[str, Any]) -> str:
    """A table of one number of workers."""
    workers, capacity = record["workers"], record["capacity"]
    lines = [
        f"under load, {workers} worker{'s' if workers > 1 else ''} of one thread: static answers "
        f"{capacity[STATIC]:.1f} images a second, dynamic {capacity[DYNAMIC]:.1f} ({capacity['ratio']:.2f}x); "
        f"{record['kept']}/{record['rounds']} rounds clean",
        "  load  images/s  requests           ms from arrival to answer",
    ]
    for row in record["loads"]:
        asked = f"  {100 * row['load']:3.0f} % {row['arrivals_per_second']:8.1f}  {row['requests']:8d}"
        for name in VARIANTS:
            own = row[name]
            lines.append(
                f"{asked:26}  {name:<7}  p50 {own['p50']:.2f}  p90 {own['p90']:.2f}  p99 {own['p99']:.2f}; "
                f"cpu {own['cpu']:.2f}, others {own['others']:.2f}"
            )
            asked = ""
    return "\n".join(lines)
