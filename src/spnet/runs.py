"""Opening a finished network: a run folder, or the name of a network shipped with the package."""

from pathlib import Path

from spnet.dynamic import DynamicNetwork
from spnet.errors import UserError, did_you_mean
from spnet.training.checkpoint import load_network

SHIPPED = Path(__file__).parent / "weights"


def shipped() -> list[str]:
    """Names of the networks in the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/model.safetensors"))


def run_folder(run: str | Path) -> Path:
    """The folder behind RUN: a path, or the name of a shipped network."""
    if str(run) in shipped():
        return SHIPPED / str(run)
    folder = Path(run)
    if not folder.exists():
        raise UserError(f"'{run}' is neither a run folder nor a shipped network.{did_you_mean(str(run), shipped())}")
    return folder


def load(run: str | Path) -> DynamicNetwork:
    """The trained network of a run, on the CPU, in eval mode. Executes nothing from the folder."""
    return load_network(run_folder(run))
