"""After the last epoch: match the cost, read the test set once, say what the numbers were made with."""

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from spnet.data import Source
from spnet.errors import UserError
from spnet.inference.calibrate import calibrate, reestimate_batch_norm, spread
from spnet.inference.evaluate import evaluate
from spnet.network.dynamic import DynamicNetwork
from spnet.runs.record import (
    BestEpoch,
    EndOfTraining,
    Environment,
    EpochRow,
    Evaluation,
    RunResult,
    Start,
    WrittenConfig,
)
from spnet.training.loop import Loop
from spnet.version import __version__

CALIBRATION_IMAGES = 2048


def finish(loop: Loop, rows: Sequence[EpochRow], made: Environment, started_from: Start | None = None) -> RunResult:
    """Calibrate the trained network in place if the run has a budget, evaluate it, and return the record of the run.

    Args:
        made: what the run was made with (`made_with`), as known when it began.
        started_from: the run whose weights were the start.
    """
    net, config, train, test = loop.net, loop.config, loop.parts.train, loop.parts.test
    training = config.training
    last = evaluate(net, test)
    budgets = calibrated = reestimated = None
    if any(net.gated):
        part = spread(train, CALIBRATION_IMAGES).in_memory()  # gone over many times
        budgets = tuple(at_budget(net, part, test, budget) for budget in training.more_budgets)
        net.decision_shift.zero_()
        if training.budget:
            calibrated = at_budget(net, part, test, training.budget)
        if training.budget and training.reestimate_bn:
            kept = {name: value.clone() for name, value in net.state_dict().items()}
            reestimate_batch_norm(net, part, loop.augmentation)
            reestimated = at_budget(net, part, test, training.budget)  # other statistics, other decisions
            if not reestimated.met:
                net.load_state_dict(kept)  # the network that is kept is the one whose figures are `final`
    best = max(rows, key=lambda row: row.validation_accuracy) if loop.parts.held_out else None
    return RunResult(
        hash=config.hash,
        label=config.label,
        config=WrittenConfig(**config.to_json()),
        last=last,
        budgets=budgets,
        calibrated=calibrated,
        reestimated=reestimated,
        final=next(figures for figures in (reestimated, calibrated, last) if figures and figures.met),
        best_epoch=BestEpoch(best.epoch, best.validation_accuracy) if best else None,
        end_of_training=EndOfTraining.of(rows[-1]),
        train_seconds=sum(row.seconds for row in rows),
        train_images=sum(row.train_images for row in rows),
        student_passes=sum(row.passes for row in rows),
        made_with=made,
        started_from=started_from,
    )


def at_budget(net: DynamicNetwork, train: Source, test: Source, budget: float) -> Evaluation:
    """Figures on the test set with the thresholds calibrated to `budget` on training images.

    A budget no threshold reaches is said in `missed`, without figures: a finished training is not thrown away for it.
    """
    try:
        reached = calibrate(net, train, budget)
    except UserError as error:
        return Evaluation(budget=budget, missed=str(error))
    return replace(evaluate(net, test), budget=budget, calibration_cost=reached)


def made_with(precision: str) -> Environment:
    """Hardware, versions and commit that a figure must carry."""
    return Environment(
        spnet=__version__,
        commit=commit(),
        torch=torch.__version__,
        python=platform.python_version(),
        hardware=hardware(),
        threads=torch.get_num_threads(),
        precision=precision,
    )


def hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)}x {names[0]} ({torch.backends.cpu.get_cpu_capability()})" if names else platform.processor()


def commit() -> str:
    """The commit of spnet's own source tree, `-dirty` when changed; empty for an installed package.

    A package installed inside somebody's repository (a virtual environment in a project) is not that repository's: ours
    is the one that tracks this very file where spnet's sources keep it.
    """
    here = Path(__file__).resolve()
    if here.parts[-4:-1] != HOME or not (here.parents[3] / ".git").exists():
        return ""
    root = here.parents[3]
    if _git(root, "ls-files", "--error-unmatch", str(here.relative_to(root))) is None:
        return ""
    return _git(root, "describe", "--always", "--dirty", "--abbrev=10") or ""


HOME = ("src", "spnet", "training")
"""Where this file lies in the source tree."""


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
