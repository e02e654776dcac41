"""Milliseconds of what is trained, through the public door: batch 1, one thread, every contender in turn.

    results/milliseconds/<scale>.json

Times can be compared within one run on one machine alone: the record is made whole, and made anew when more is trained.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spnet.data import Source
from spnet.files import write_json
from spnet.reproduction.kept import read_kept
from spnet.reproduction.plan import Plan
from spnet.reproduction.table import Cells
from spnet.runs.forms import to_json
from spnet.runs.record import Environment

if TYPE_CHECKING:
    from spnet.inference.engine import Engine

FOLDER = "milliseconds"
IMAGES = 400
"""Test images that each contender is timed on."""
HEAD = ("contender", "n", "ms", "median ms", "times the full network's speed")


@dataclass(frozen=True)
class Timed:
    """A contender at a budget. ms: mean over the images, for a dynamic network takes another time for each."""

    name: str = ""
    ms: float = 0.0
    median_ms: float = 0.0


@dataclass(frozen=True)
class Times:
    """What was timed together."""

    rows: tuple[Timed, ...] = ()
    images: int = 0
    made_with: Environment = field(default_factory=Environment)

    def of(self, name: str) -> Timed | None:
        return next((row for row in self.rows if row.name == name), None)


def _file(plan: Plan, results: Path) -> Path:
    return results / FOLDER / f"{plan.scale.name}.json"


def make(contenders: Iterable[tuple[str, "Engine"]], test: Source, plan: Plan, results: Path) -> Times:
    """Time every (name, engine) on the same test images and keep the record."""
    from spnet.bench.latency import in_turn
    from spnet.inference.calibrate import spread
    from spnet.training.finish import made_with

    named = list(contenders)
    views = spread(test, IMAGES).images
    calls = [[partial(engine, views[k : k + 1]) for k in range(len(views))] for _, engine in named]
    rows = [
        Timed(name, float(np.mean(taken)), float(np.median(taken)))
        for (name, _), taken in zip(named, in_turn(calls), strict=True)
    ]
    times = Times(tuple(rows), len(views), made_with("fp32"))
    write_json(_file(plan, results), to_json(times))
    return times


def read(plan: Plan, results: Path) -> Times:
    """Raises:
    UserError: the record is damaged.
    """
    return read_kept(Times, _file(plan, results)) or Times()


def table(times: Times, full: str) -> Cells:
    """From fast to slow; full: the name of the network that all are compared with."""
    reference = times.of(full)
    return [
        [*HEAD],
        *(
            [
                row.name, str(times.images), f"{row.ms:.3g}", f"{row.median_ms:.3g}",
                f"{reference.ms / row.ms:.2f}" if reference else "",
            ]
            for row in sorted(times.rows, key=lambda row: row.ms)
        ),
    ]  # fmt: skip
