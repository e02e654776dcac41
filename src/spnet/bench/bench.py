"""Does skipping pay on this machine? Forced execution rates, routers running, against the strongest static network.

Every variant is a process of its own; rounds are interleaved, so that a disturbance hits all; measurements during
which others took the cores are dropped and counted. A speed-up is the median over rounds of the ratio within a round,
against the static variant for which it is smallest, of those that are as accurate: in fp32, or in int8 that loses
nothing (`spnet.bench.int8.EQUAL`).

Forced decisions are independent per sample and block with the given probability of the full option (else skip).
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from spnet.bench.int8 import Int8, quantise
from spnet.bench.isolated import Isolated
from spnet.bench.profile import break_even
from spnet.bench.rivals import ENGINE, PLAIN, RIVALS, SESSION, rivals_for
from spnet.bench.series import Series, speed_up
from spnet.bench.table import OWN
from spnet.data import Dataset
from spnet.errors import UserError
from spnet.inference.cascade import Cascade, Model
from spnet.inference.engine import Engine
from spnet.inference.runtimes.onnx.network import check_form
from spnet.network.dynamic import DynamicNetwork
from spnet.network.heads import check_exit
from spnet.progress import counted

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
    load: bool = False
    """Single images are served under load, too, by own decisions: see `spnet.bench.load`."""

    def __post_init__(self) -> None:
        if len(set(self.rates)) < len(self.rates):
            raise UserError(f"every rate once, not {', '.join(map(str, self.rates))}.")
        for rate in self.rates:
            if rate != OWN and not 0 <= float(rate) <= 1:
                raise UserError(f"a rate is a share of blocks that run, 0 to 1, or 'own'; not {rate}.")
        if self.exit_confidence is not None and OWN not in self.rates and not self.load:
            raise UserError("early exit belongs to own decisions: add --rates own.")
        fewest = min(self.batches, default=1 if self.load else 0)
        if not self.rates or fewest < 1 or min(self.threads, default=0) < 1:
            raise UserError("bench needs at least one rate, and batches and threads of at least 1.")
        if self.rounds < 1 or not 0 < self.seconds < math.inf:
            raise UserError("bench needs at least one round of a positive number of seconds.")


def bench(
    net: Model,
    config: BenchConfig,
    images: np.ndarray | None = None,
    data: Dataset | None = None,
) -> list[dict[str, Any]]:
    """One record per (threads, batch): `static` and `dynamic` variants, the fastest static one, speed-ups. The static
    rivals of a cascade are those of its last member.

    Args:
        images: (M, C, H, W) normalised float32, M at least the largest batch; random ones when left out.
        data: int8 is calibrated on its training images and judged on its test images. Without, int8 is timed all the
            same, and never counts as equally accurate.
    """
    _refuse(net, config)
    if images is None:
        generator = np.random.default_rng(0)
        images = generator.standard_normal((max(*config.batches, DRAWS), *net.input_shape), np.float32)
    if len(images) < max(config.batches):
        raise UserError(f"a batch of {max(config.batches)} needs as many images; the data have {len(images)}.")
    cells = [(threads, batch) for threads in config.threads for batch in config.batches]
    statics = {cell: rivals_for(*cell, config.compiled) for cell in cells}
    last = net.last if isinstance(net, Cascade) else net
    names = [name for name in RIVALS if RIVALS[name].int8 and any(name in some for some in statics.values())]
    int8 = quantise(last, names, images, data) if names else None
    records = []
    for cell in counted(cells, "batch sizes and thread counts", len(cells)):
        records.append(_cell(net, config, images, *cell, statics[cell], int8))
    return records


def _refuse(net: Model, config: BenchConfig) -> None:
    """Raise `UserError` for what cannot be timed; here, for a process of its own could only say it in a traceback."""
    if isinstance(net, Cascade) and (config.rates != (OWN,) or config.plain):
        raise UserError("a cascade's decisions cannot be forced, and is no one graph: --rates own, no --plain.")
    check_fit(net, config.exit_confidence)


def check_fit(net: Model, exit_confidence: float | None) -> None:
    """Raise `UserError` unless this network skips something and every part of it has an ONNX form."""
    if isinstance(net, Cascade):
        Engine(net, exit_confidence=exit_confidence)
        for member in net.networks:
            check_form(member)
        return
    if not any(net.gated):
        raise UserError("a static network has nothing to skip: bench a dynamic method, or a cascade.")
    check_exit(net.stage_heads, exit_confidence)
    check_form(net)


def _cell(
    net: Model,
    config: BenchConfig,
    images: np.ndarray,
    threads: int,
    batch: int,
    statics: Sequence[str],
    int8: Int8 | None,
) -> dict[str, Any]:
    last, timed = (net.last, (ENGINE,)) if isinstance(net, Cascade) else (net, (ENGINE, SESSION))
    decisions = {rate: None if rate == OWN else _forced(last, float(rate), batch) for rate in config.rates}
    series: dict[tuple[str, Any], Series] = {}
    with ExitStack() as stack:
        timed = (*timed, *((PLAIN,) if config.plain else ()))
        run = partial(
            Isolated,
            threads=threads,
            batch=batch,
            images=images,
            exit_confidence=config.exit_confidence,
            int8=int8.model if int8 else None,
        )
        workers = {
            name: stack.enter_context(run(name, last if name in statics else net)) for name in (*statics, *timed)
        }
        for _ in counted(range(config.rounds), "rounds", config.rounds):
            for name, worker in workers.items():
                for rate in (None,) if name in statics else config.rates:
                    forced = decisions[rate] if rate is not None else None
                    series.setdefault((name, rate), Series(threads)).timings.append(worker.time(forced, config.seconds))
    rivals = {name: series[name, None] for name in statics}
    equal = {name: rival for name, rival in rivals.items() if int8 is None or int8.equal(name)}
    in_8_bits = {name: rival for name, rival in rivals.items() if RIVALS[name].int8}
    static = {
        name: rival.record() | (int8.record(name) if int8 else {"precision": "fp32"}) for name, rival in rivals.items()
    }
    costs = {rate: _cost(net, decisions[rate], images, config.exit_confidence) for rate in config.rates}
    dynamic = []
    for name in timed:
        for rate, cost in costs.items():
            own, ideal = series[name, rate], 1 / cost
            found = speed_up(equal, own)
            share = (found["speed_up"] - 1) / (ideal - 1) if ideal > 1.15 else None  # above 87 % the divisor is noise
            row = {"variant": name, "rate": rate, "cost": cost, **found, "mac_ideal": ideal, "realised": share}
            over = {"over_int8": speed_up(in_8_bits, own)} if in_8_bits else {}
            dynamic.append(row | over | own.record())
    main = [row for row in dynamic if row["variant"] == ENGINE]
    record = {"threads": threads, "batch": batch, "static": static, "dynamic": dynamic}
    if len({row["cost"] for row in main}) > 1:
        deployed = "onnx-workers" if "onnx-workers" in rivals else "onnx-intra"  # what `auto` falls back on
        over = [speed_up({deployed: rivals[deployed]}, series[ENGINE, rate])["speed_up"] for rate in config.rates]
        limit = break_even([row["cost"] for row in main], over)
        fallback = speed_up(equal, rivals[deployed])["speed_up"]
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
