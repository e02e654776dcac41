"""Whether a record has what tables are made of: what is absent or null reads well, but gives no row."""

from collections.abc import Iterator
from math import isnan

from spnet.runs.record import Evaluation, RunResult

IN_TABLES = (
    "accuracy",
    "n",
    "macs_mean",
    "macs_static",
    "gflops_mean",
    "cost_ratio",
    "distinct_paths",
    "accuracy_shuffled_paths",
    "accuracy_fixed_path",
    "cost_ratio_fixed_path",
)
COUNTS = ("n", "macs_static", "distinct_paths")
"""Of these, where 0 says that there is none."""


def lacking(found: RunResult) -> str | None:
    """What tables need and a record does not have (`last/accuracy`); None if it is whole."""
    return next(_lacking(found), None)


def _lacking(found: RunResult) -> Iterator[str]:
    made = found.made_with
    there = {
        "hash": found.hash,
        "last": found.last != Evaluation(),
        "train_seconds": not isnan(found.train_seconds),
        "made_with/spnet": made.spnet,
        "made_with/torch": made.torch,
        "made_with/hardware": made.hardware,
        "made_with/threads": made.threads,
        "made_with/precision": made.precision,
        "curves": found.curves,
        "curves/phase": found.curves and found.curves.phase,
    }
    yield from (name for name, value in there.items() if not value)
    tried = {"calibrated": found.calibrated, **{f"budgets/{i}": b for i, b in enumerate(found.budgets or ())}}
    for name, figures in {"last": found.last, **tried}.items():
        if figures and (figures.met or name == "last"):
            yield from (f"{name}/{key}" for key in IN_TABLES if not _measured(figures, key))


def _measured(figures: Evaluation, key: str) -> bool:
    value = getattr(figures, key)
    return value > 0 if key in COUNTS else not isnan(value)
