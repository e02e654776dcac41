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
    if not os.path.exists(folder):  # too long a name does not either
        raise UserError(f"'{run}' is neither a run folder nor a shipped network.{did_you_mean(str(run), shipped())}")
    return folder


def load(run: str | Path) -> "DynamicNetwork":
    """The trained network of a run, on the CPU, in eval mode. Executes nothing from the folder.

    Its `classes` are the names of the classes in the order of the logits; None if it was trained on data without names.

    Raises:
        UserError: no such run, or one whose files are damaged or of another network.

    Example:
        >>> spnet.load("runs/digits").input_shape
        (1, 8, 8)
    """
    from spnet.runs.folder import load_network

    return load_network(run_folder(run))
