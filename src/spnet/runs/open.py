"""Opening a finished network: a run folder, or the name of a network shipped with the package."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from spnet.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from spnet.network.dynamic import DynamicNetwork

SHIPPED = Path(__file__).parent.parent / "weights"


def shipped() -> list[str]:
    """Names of the networks in the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/model.safetensors"))


def run_folder(run: str | Path) -> Path:
    """The folder behind RUN: the name of a shipped network, or a path. A `Path` is never a name."""
    if not isinstance(run, (str, os.PathLike)):
        raise UserError(f"a run is a folder or the name of a shipped network, not {type(run).__name__}.")
    if isinstance(run, str) and run in shipped():
        return SHIPPED / run
    folder = Path(run)
    if not folder.exists():
        raise UserError(f"'{run}' is neither a run folder nor a shipped network.{did_you_mean(str(run), shipped())}")
    return folder


def recorded_cost(run: str | Path) -> float | None:
    """Mean cost of a test image as the run's record says, a share of the static cost; None without a record."""
    from spnet.files import read_json

    file = run_folder(run) / "result.json"
    if not file.is_file():
        return None
    record = read_json(file)
    final = record.get("final") if isinstance(record, dict) else None
    cost = final.get("cost_ratio") if isinstance(final, dict) else None
    return cost if isinstance(cost, float) and 0 < cost <= 1.5 else None


def load(run: str | Path) -> "DynamicNetwork":
    """The trained network of a run, on the CPU, in eval mode. Executes nothing from the folder.

    Its `classes` are the names of the classes in the order of the logits; None if it was trained on data without names.
    """
    from spnet.runs.folder import load_network

    return load_network(run_folder(run))
