"""A training that starts from another run's weights (`--init RUN`), or the plain network's (`--init FILE`)."""

from pathlib import Path

from torch import Tensor

from spnet.errors import UserError
from spnet.network.dynamic import DynamicNetwork
from spnet.network.take_state import take_state
from spnet.runs import weights
from spnet.runs.folder import read_config
from spnet.runs.state_file import read_state

OWN = ("mean", "std", "decision_shift")
"""What the new network keeps: how its own images are normalised (config.json says the same), and its threshold."""
ABOUT_CLASSES = ("backbone.head.", "stage_heads.classifiers.")


def initialise(net: DynamicNetwork, source: Path, classes: list[str]) -> str:
    """Take over weights from a run's folder, or from a state dict of the original network: a file.

    Args:
        net: the new network, changed in place; `classes` are the names of its classes.

    Returns what was taken and what is new, in one line.

    Raises:
        UserError: the run or file cannot be read, or is another network's.
    """
    if source.is_dir():
        return _from_run(net, source, classes)
    return f"from {source}: {take_state(net, read_state(source))}"


def _from_run(net: DynamicNetwork, folder: Path, classes: list[str]) -> str:
    """Take over from another run whatever fits by name and shape; the whole backbone must fit, but for its head. Heads
    are taken where the classes are the same."""
    _, facts = read_config(folder)
    try:
        given = weights.read(folder / "model.safetensors")
    except OSError as error:
        raise UserError(f"--init {folder}: its model.safetensors cannot be read ({error}).") from error
    same = list(facts.classes) == classes
    own = net.state_dict()
    fitting = {name: given[name] for name in own if _fits(name, own[name], given.get(name), same)}
    new = [name for name in own if name not in fitting and name not in OWN]
    lacking = [name for name in new if name.startswith("backbone.") and not name.startswith("backbone.head.")]
    if lacking:
        raise UserError(
            f"--init {folder}: its backbone differs (no matching '{lacking[0]}'); use a run of the same backbone, "
            "block rule and image channels."
        )
    net.load_state_dict(fitting, strict=False)
    return _told(folder, fitting, new, same)


def _fits(name: str, own: Tensor, given: Tensor | None, same_classes: bool) -> bool:
    if name in OWN or (name.startswith(ABOUT_CLASSES) and not same_classes):
        return False
    return given is not None and given.shape == own.shape


def _told(folder: Path, fitting: dict[str, Tensor], new: list[str], same_classes: bool) -> str:
    """`from RUN: backbone, router; new: head (other classes); ...`"""

    def parts(names: list[str]) -> str:
        found = dict.fromkeys(_part(name) for name in names)
        return ", ".join(found) or "nothing"

    why = "" if same_classes else " (other classes)"
    return f"from {folder}: {parts(list(fitting))}; new: {parts(new)}{why}; mean and std are those of these data."


def _part(name: str) -> str:
    if name.startswith("backbone."):
        return "head" if name.startswith("backbone.head.") else "backbone"
    return "stage heads" if name.startswith("stage_heads.") else name.split(".")[0]
