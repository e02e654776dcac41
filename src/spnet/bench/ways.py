"""The ways to compute a training step: are they the same step on this machine, and which is the fastest?

eager       as written
compiled    blocks through torch.compile
captured    the whole step replayed as a CUDA graph
both        a CUDA graph of compiled blocks
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from spnet.bench.steps import Agreement, Trial, interleaved
from spnet.data import Dataset
from spnet.runs.config import RunConfig
from spnet.training.capture import WARM
from spnet.training.fit import fit

LOSSES, GRADIENTS, WEIGHTS = 1e-4, 3e-2, 1e-4
"""Relative differences allowed. Compiled kernels add up in another order, and a ReLU whose input is zero but for
rounding then opens in one network alone: on a processor two memory layouts of the same step differ by up to 7e-3 in
gradients (ResNet-20, batch 32, fp32) and inductor from eager by 1e-3. A wrong step is off by its own size."""


def ways(backend: str = "inductor") -> dict[str, dict[str, Any]]:
    """Each way as settings of a run."""
    compiled: dict[str, Any] = {"compile": backend}
    return {"eager": {}, "compiled": compiled, "captured": {"capture": True}, "both": {**compiled, "capture": True}}


@dataclass(frozen=True)
class Check:
    """`passed` is None where it could not be tried, and `said` says why."""

    name: str
    passed: bool | None
    said: str

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "skipped"}[self.passed]
        return f"check {self.name:<9} {word:<8} {self.said}"


def check(
    config: RunConfig, dataset: Dataset, device: torch.device, tried: Sequence[str], backend: str = "inductor"
) -> list[Check]:
    """Each way in `tried` against the way it is built on, and a resumed training against one left alone.

    The last is made in the fullest way that passed. Whatever goes wrong on an unknown machine leaves a way unproven,
    not the caller without an answer.
    """
    settings = ways(backend)

    def compared(a: str, b: str, precision: str, warm: int | None = None) -> Agreement:
        trials = [Trial(config.with_settings(precision=precision, **settings[way]), dataset, device) for way in (a, b)]
        for trial in trials:
            trial.take(1) if warm is None else trial.take(1, warm)
        return Agreement.between(*trials)

    def compiled() -> tuple[bool, str]:
        with _exact_float32():
            found = compared("compiled", "eager", "fp32", warm=0)
        return found.losses < LOSSES and found.gradients < GRADIENTS, f"after one step in fp32 {found}"

    def captured(way: str, plain: str) -> tuple[bool, str]:
        if device.type != "cuda":
            raise RuntimeError("CUDA graphs need a CUDA device")
        found = compared(way, plain, "auto")
        return max(found.losses, found.weights) < WEIGHTS, f"after {WARM + 2} steps {found}"

    def resumed() -> tuple[bool, str]:
        way = ([check.name for check in checks if check.passed] or ["eager"])[-1]
        same = _resumes(config.with_settings(epochs=2, **settings[way]), dataset)
        return same, f"a training stopped and gone on with ends in {'the same' if same else 'other'} bits ({way})"

    attempts: dict[str, Callable[[], tuple[bool, str]]] = {
        "compiled": compiled,
        "captured": lambda: captured("captured", "eager"),
        "both": lambda: captured("both", "compiled"),
        "resumed": resumed,
    }
    checks: list[Check] = []
    for name, attempt in attempts.items():
        if name not in (*tried, "resumed"):
            checks.append(Check(name, None, "not asked for"))
            continue
        try:
            checks.append(Check(name, *attempt()))
        except Exception as error:
            reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
            checks.append(Check(name, None, f"{reason} ({type(error).__name__})"))
    return checks


def measure(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    device: torch.device,
    tried: Sequence[str],
    *,
    backend: str = "inductor",
    rounds: int = 3,
    steps: int = 10,
) -> list[dict[str, Any]]:
    """Milliseconds of a step of each config in each way in `tried`, medians of interleaved rounds; peak memory.

    Returns one row a config and way: `method`, `way`, `ms`, `low` and `high` (of the rounds), `peak_gib` (weights,
    teacher, activations; None on a processor), `images_per_second`.
    """
    trials: dict[str, Trial] = {}
    rows: list[dict[str, Any]] = []
    for config in configs:
        for way in tried:
            cuda = device.type == "cuda"
            before = torch.cuda.memory_allocated(device) if cuda else 0
            if cuda:
                torch.cuda.reset_peak_memory_stats(device)
            trial = Trial(config.with_settings(**ways(backend)[way]), dataset, device)
            trial.take(1)
            peak = (torch.cuda.max_memory_allocated(device) - before) / 2**30 if cuda else None
            trials[str(len(rows))] = trial
            rows.append({"method": config.label, "way": way, "peak_gib": peak})
    times = interleaved(trials, rounds, steps)
    for row, (name, values) in zip(rows, times.items(), strict=True):
        ms = median(values)
        row |= {"ms": ms, "low": min(values), "high": max(values)}
        row["images_per_second"] = 1e3 * trials[name].batch_size / ms
    return rows


def hours(row: dict[str, Any], epochs: int, images: int, batch_size: int) -> float:
    """What the steps alone of a training would take, without evaluation."""
    return epochs * (images // batch_size) * row["ms"] / 3.6e6


def fastest(rows: Sequence[dict[str, Any]], method: str) -> str:
    """The way in which a step of this method took the least time."""
    return min((row for row in rows if row["method"] == method), key=lambda row: row["ms"])["way"]


def _resumes(config: RunConfig, dataset: Dataset) -> bool:
    def interrupt(row: object) -> None:
        raise InterruptedError

    with tempfile.TemporaryDirectory() as folder:
        whole, halved = Path(folder) / "whole", Path(folder) / "halved"
        fit(config, dataset, whole)
        with contextlib.suppress(InterruptedError):
            fit(config, dataset, halved, report=interrupt)
        fit(config, dataset, halved, resume=True)
        return len({next(run.glob("model.*")).read_bytes() for run in (whole, halved)}) == 1


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    """No TF32 in convolutions, which keeps 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
