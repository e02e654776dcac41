"""After the last epoch: match the cost, read the test set once, say what the numbers were made with."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from spnet.data import Source
from spnet.errors import UserError
from spnet.inference.calibrate import calibrate, reestimate_batch_norm, spread
from spnet.inference.evaluate import evaluate
from spnet.network.dynamic import DynamicNetwork
from spnet.training.loop import Loop
from spnet.version import __version__

CALIBRATION_IMAGES = 2048


def finish(loop: Loop, rows: list[dict[str, Any]], made: dict[str, Any]) -> dict[str, Any]:
    """Calibrate the trained network in place if the run has a budget, evaluate it, and return the record of the run.

    `made`: what the run was made with (`made_with`), as known when it began.
    """
    net, config, train, test = loop.net, loop.config, loop.parts.train, loop.parts.test
    training = config.training
    result: dict[str, Any] = {"hash": config.hash, "label": config.label, "config": config.to_json()}
    result["last"] = evaluate(net, test)
    if any(net.gated):
        part = spread(train, CALIBRATION_IMAGES).in_memory()  # gone over many times
        result["budgets"] = [at_budget(net, part, test, budget) for budget in training.more_budgets]
        net.decision_shift.zero_()
        if training.budget:
            result["calibrated"] = at_budget(net, part, test, training.budget)
        if training.budget and training.reestimate_bn:
            kept = {name: value.clone() for name, value in net.state_dict().items()}
            reestimate_batch_norm(net, part, loop.augmentation)
            result["reestimated"] = at_budget(net, part, test, training.budget)  # other statistics, other decisions
            if "missed" in result["reestimated"]:
                net.load_state_dict(kept)  # the network that is kept is the one whose figures are `final`
    result["final"] = next(
        figures for name in ("reestimated", "calibrated", "last") if "accuracy" in (figures := result.get(name, {}))
    )
    if loop.parts.held_out:
        best = max(rows, key=lambda row: row["validation_accuracy"])
        result["best_epoch"] = {"epoch": best["epoch"], "validation_accuracy": best["validation_accuracy"]}
    end = rows[-1]
    result["end_of_training"] = {key: end.get(key) for key in _KEPT}
    result["train_seconds"] = sum(row["seconds"] for row in rows)
    result["train_images"] = sum(row["train_images"] for row in rows)
    result["student_passes"] = sum(row.get("student_passes", row["train_images"]) for row in rows)
    result["made_with"] = made
    return result


def at_budget(net: DynamicNetwork, train: Source, test: Source, budget: float) -> dict[str, Any]:
    """Figures on the test set with the thresholds calibrated to `budget` on training images.

    A budget no threshold reaches is said in `missed`, without figures: a finished training is not thrown away for it.
    """
    try:
        reached = calibrate(net, train, budget)
    except UserError as error:
        return {"budget": budget, "missed": str(error)}
    return {"budget": budget, "calibration_cost": reached, **evaluate(net, test)}


_KEPT = (
    "train_accuracy",
    "train_macs_mean",
    "losses",
    "watched",
    "gradient_share",
    "flips",
    "path_agreement",
    "evolution_kl",
    "cost_ratio",
    "distinct_paths",
    "always_run",
    "always_skipped",
)


def made_with(precision: str) -> dict[str, Any]:
    """Hardware, versions and commit that a figure must carry."""
    return {
        "spnet": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


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
