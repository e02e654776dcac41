"""Does skipping pay on this machine? Forced execution rates, routers running, against the strongest static network.

Every variant is a process of its own; rounds are interleaved, so that a disturbance hits all; measurements during
which others took the cores are dropped and counted. A speed-up is the median over rounds of the ratio within a round,
against the static variant for which it is smallest.

Forced decisions are independent per sample and block with the given probability of the full option (else skip).
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from spnet.bench.isolated import Isolated
from spnet.bench.latency import Timing, percentiles, spread
from spnet.bench.profile import break_even
from spnet.bench.rivals import ENGINE, PLAIN, SESSION, rivals_for
from spnet.errors import UserError
from spnet.inference.cascade import Cascade, Model
from spnet.inference.engine import Engine
from spnet.inference.runtimes.onnx.network import check_form
from spnet.network.dynamic import DynamicNetwork
from spnet.network.heads import check_exit

OWN = "own"
"""Instead of a rate: the network's own decisions."""
TRUSTED = 3
"""Undisturbed rounds that a break-even cost needs, at every rate, before the machine's profile takes it."""
DRAWS = 64
"""Forced decisions drawn for a rate: images in all at least this many, so that the rate is met and branches vary."""


@dataclass(frozen=True)
class BenchConfig:
    rates: tuple[float | str, ...] = (0.3, 0.5, 0.7, 0.9)
    batches: tuple[int, ...] = (1, 64, 256)
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 9
    seconds: float = 0.4
    compiled: bool = False
    plain: bool = False
    """Also time the portable graph, as exported."""
    exit_confidence: float | None = None
    """Own decisions leave at the first stage this sure of its class."""

    def __post_init__(self) -> None:
        if len(set(self.rates)) < len(self.rates):
            raise UserError(f"every rate once, not {', '.join(map(str, self.rates))}.")
        for rate in self.rates:
            if rate != OWN and not 0 <= float(rate) <= 1:
                raise UserError(f"a rate is a share of blocks that run, 0 to 1, or 'own'; not {rate}.")
        if self.exit_confidence is not None and OWN not in self.rates:
            raise UserError("early exit belongs to own decisions: add --rates own.")
        if not self.rates or min(self.batches, default=0) < 1 or min(self.threads, default=0) < 1:
            raise UserError("bench needs at least one rate, and batches and threads of at least 1.")
        if self.rounds < 1 or not 0 < self.seconds < math.inf:
            raise UserError("bench needs at least one round of a positive number of seconds.")


@dataclass
class _Series:
    """Timings of one thing, one a round."""

    threads: int
    timings: list[Timing] = field(default_factory=list)

    def clean(self) -> list[int]:
        """Rounds in which nobody took the cores."""
        return [k for k, timing in enumerate(self.timings) if not timing.contended(self.threads)]

    def record(self) -> dict[str, Any]:
        """Figures of the clean rounds; of all of them where none is clean (`kept` says so)."""
        clean = self.clean()
        timings = [self.timings[k] for k in clean] or self.timings
        calls = percentiles([seconds for timing in timings for seconds in timing.seconds])
        return {
            "ms": {key: 1e3 * value for key, value in spread([t.mean for t in timings]).items()},
            "latency_ms": {key: 1e3 * value for key, value in calls.items()},
            "cpu_ms": 1e3 * spread([t.cpu_seconds for t in timings])["median"],
            "rounds": len(self.timings),
            "kept": len(clean),
            "cpu": sum(t.cpu for t in timings) / len(timings),
            "others": sum(t.others for t in timings) / len(timings),
        }


def _speed_up(rivals: dict[str, _Series], own: _Series) -> dict[str, Any]:
    """Of `own` over the rival that looks best beside it: the median over rounds of the ratio within a round.

    Only rounds in which both were left alone count; where there is none (`compared` is 0) all do, and the figure is
    as good as interleaving makes it. `cpu_speed_up` is the same in processor time.
    """
    found = []
    for name, rival in rivals.items():
        both = sorted(set(rival.clean()) & set(own.clean()))
        pairs = [(rival.timings[k], own.timings[k]) for k in both or range(len(own.timings))]
        ratio = spread([theirs.mean / ours.mean for theirs, ours in pairs])
        cpu = spread([theirs.cpu_seconds / ours.cpu_seconds for theirs, ours in pairs])["median"]
        found.append((ratio, cpu, len(both), name))
    ratio, cpu, compared, name = min(found, key=lambda entry: entry[0]["median"])
    return {
        "rival": name,
        "speed_up": ratio["median"],
        "speed_up_quartiles": [ratio["q25"], ratio["q75"]],
        "cpu_speed_up": cpu,
        "compared": compared,
    }


def bench(
    net: Model, config: BenchConfig, images: np.ndarray | None = None, progress: Any = None
) -> list[dict[str, Any]]:
    """One record per (threads, batch): `static` and `dynamic` variants, the fastest static one, speed-ups. The static
    rivals of a cascade are those of its last member.

    Args:
        images: (M, C, H, W) normalised float32, M at least the largest batch; random ones when left out.
        progress: called with one line now and then.
    """
    _refuse(net, config)
    if images is None:
        generator = np.random.default_rng(0)
        images = generator.standard_normal((max(*config.batches, DRAWS), *net.input_shape), np.float32)
    if len(images) < max(config.batches):
        raise UserError(f"a batch of {max(config.batches)} needs as many images; the data have {len(images)}.")
    records = []
    for threads in config.threads:
        for batch in config.batches:
            records.append(_cell(net, config, images, threads, batch))
            if progress:
                progress(describe(records[-1]))
    return records


def _refuse(net: Model, config: BenchConfig) -> None:
    """Raise `UserError` for what cannot be timed; here, for a process of its own could only say it in a traceback."""
    if isinstance(net, Cascade):
        if config.rates != (OWN,) or config.plain:
            raise UserError("a cascade's decisions cannot be forced, and is no one graph: --rates own, no --plain.")
        Engine(net, exit_confidence=config.exit_confidence)
        for member in net.networks:
            check_form(member)
        return
    if not any(net.gated):
        raise UserError("a static network has nothing to skip: bench a dynamic method, or a cascade.")
    check_exit(net.stage_heads, config.exit_confidence)
    check_form(net)


def _cell(net: Model, config: BenchConfig, images: np.ndarray, threads: int, batch: int) -> dict[str, Any]:
    statics = rivals_for(threads, batch, config.compiled)
    last, timed = (net.last, (ENGINE,)) if isinstance(net, Cascade) else (net, (ENGINE, SESSION))
    decisions = {rate: None if rate == OWN else _forced(last, float(rate), batch) for rate in config.rates}
    series: dict[tuple[str, Any], _Series] = {}
    with ExitStack() as stack:
        timed = (*timed, *((PLAIN,) if config.plain else ()))
        run = partial(Isolated, threads=threads, batch=batch, images=images, exit_confidence=config.exit_confidence)
        workers = {
            name: stack.enter_context(run(name, last if name in statics else net)) for name in (*statics, *timed)
        }
        for _ in range(config.rounds):
            for name, worker in workers.items():
                for rate in (None,) if name in statics else config.rates:
                    forced = decisions[rate] if rate is not None else None
                    series.setdefault((name, rate), _Series(threads)).timings.append(
                        worker.time(forced, config.seconds)
                    )
    rivals = {name: series[name, None] for name in statics}
    static = {name: rival.record() for name, rival in rivals.items()}
    costs = {rate: _cost(net, decisions[rate], images, config.exit_confidence) for rate in config.rates}
    dynamic = []
    for name in timed:
        for rate, cost in costs.items():
            found, ideal = _speed_up(rivals, series[name, rate]), 1 / cost
            share = (found["speed_up"] - 1) / (ideal - 1) if ideal > 1.15 else None  # above 87 % the divisor is noise
            row = {"variant": name, "rate": rate, "cost": cost, **found, "mac_ideal": ideal, "realised": share}
            dynamic.append(row | series[name, rate].record())
    main = [row for row in dynamic if row["variant"] == ENGINE]
    record = {"threads": threads, "batch": batch, "static": static, "dynamic": dynamic}
    if len({row["cost"] for row in main}) > 1:
        limit = break_even([row["cost"] for row in main], [row["speed_up"] for row in main])
        deployed = rivals["onnx-workers" if "onnx-workers" in rivals else "onnx-intra"]
        fallback = _speed_up(rivals, deployed)["speed_up"]
        for row in main:
            falls_back = row["cost"] >= limit
            runs, speed = ("static", fallback) if falls_back else ("dynamic", row["speed_up"])
            row["auto"] = {"runs": runs, "speed_up": speed}
        if min(row["compared"] for row in main) >= TRUSTED:
            record["break_even_cost"] = limit
    return record


def _forced(net: DynamicNetwork, rate: float, batch: int) -> list[np.ndarray]:
    """Decisions (batch, N) for a number of calls."""
    generator = np.random.default_rng(1)
    full = np.array(net.options) - 1
    calls = max(1, -(-DRAWS // batch))
    runs = generator.random((calls, batch, len(full))) < rate
    return list(np.where(runs | ~np.array(net.gated), full, 0))


@torch.no_grad()
def _cost(net: Model, decisions: list[np.ndarray] | None, images: np.ndarray, exit_confidence: float | None) -> float:
    """Mean multiply-adds of the decisions, routers and stage heads that run included, as a share of the static cost."""
    if decisions is None or isinstance(net, Cascade):
        engine = Engine(net, "masked", exit_confidence=exit_confidence)
        macs = torch.cat([engine(part).macs for part in torch.from_numpy(images).split(64)])
    else:
        chosen = torch.from_numpy(np.concatenate(decisions))
        exits = torch.full((len(chosen),), len(net.backbone.stages.lengths) - 1)
        macs = net.macs_of(chosen, exits, routed=True, heads=False)
    return macs.double().mean().item() / net.static_macs


def describe(record: dict[str, Any]) -> str:
    """A few lines about one (threads, batch)."""
    static = ", ".join(f"{name} {row['ms']['median']:.2f}" for name, row in record["static"].items())
    lines = [f"threads {record['threads']}, batch {record['batch']}: static ms {static}"]
    for row in record["dynamic"]:
        realised = "" if row["realised"] is None else f", realised {100 * row['realised']:.0f} %"
        auto = f"; auto {row['auto']['runs']} {row['auto']['speed_up']:.2f}x" if "auto" in row else ""
        rate = row["rate"] if row["rate"] == OWN else f"{100 * row['rate']:.0f} %"
        late = row["latency_ms"]
        lines.append(
            f"  {row['variant']:<13} rate {rate:>5}: {row['speed_up']:.2f}x over {row['rival']} "
            f"({row['cpu_speed_up']:.2f}x in CPU time), MACs {row['mac_ideal']:.2f}x{realised}; "
            f"{row['ms']['median']:.2f} ms, p50 {late['p50']:.2f} p90 {late['p90']:.2f} p99 {late['p99']:.2f}; "
            f"{row['compared']}/{row['rounds']} rounds clean, cpu {row['cpu']:.2f}, others {row['others']:.2f}{auto}"
        )
    if "break_even_cost" in record:
        lines.append(f"  skipping pays below a cost of {100 * record['break_even_cost']:.0f} % of static")
    return "\n".join(lines)
