"""A training that starts from another run's weights (`--init RUN`), or the plain network's (`--init FILE`)."""

from pathlib import Path

import torch
from torch import Tensor

from spnet.backbones.base import Backbone
from spnet.errors import UserError
from spnet.network.dynamic import DynamicNetwork
from spnet.network.modes import evaluating
from spnet.network.take_state import take_state
from spnet.runs import weights
from spnet.runs.folder import read_config
from spnet.runs.state_file import read_state

OWN = ("mean", "std", "decision_shift")
"""What the new network keeps: how its own images are normalised (config.json says the same), and its threshold."""
SAME = 1e-4
"""Relative difference of logits below which two networks of the same weights are one: rounding."""
ABOUT_CLASSES = ("backbone.head.", "stage_heads.classifiers.")


def initialise(net: DynamicNetwork, source: Path | DynamicNetwork, classes: list[str]) -> str:
    """Take over weights from a run's folder, from a state dict of the original network (a file), or from a network that
    computes the same.

    Args:
        net: the new network, changed in place; `classes` are the names of its classes.

    Returns what was taken and what is new, in one line.

    Raises:
        UserError: the run or file cannot be read, or is another network's.
    """
    if isinstance(source, DynamicNetwork):
        return _from_network(net, source)
    if source.is_dir():
        return _from_run(net, source, classes)
    return f"from {source}: {take_state(net, read_state(source))}"


@torch.no_grad()
def _from_network(net: DynamicNetwork, given: DynamicNetwork) -> str:
    """All weights of a network somebody made, once it is known that the run's own, built by name, is the same one."""
    own, state = net.state_dict(), given.state_dict()
    shapes = [{name: value.shape for name, value in tensors.items()} for tensors in (own, state)]
    differs = sorted(name for name, _ in shapes[0].items() ^ shapes[1].items())
    if not differs:
        net.load_state_dict({**state, **{name: own[name] for name in OWN}})
        images = torch.rand(2, *net.input_shape, generator=torch.Generator().manual_seed(0))
        expected, found = (_logits(network.backbone, images.to(network.mean.device)) for network in (given, net))
        if float((found - expected).abs().max()) <= SAME * float(expected.abs().max()):
            return "from the network given: all weights"
    raise UserError(
        f"backbone '{net.backbone.name}' builds another network than the one given ({(differs or ['its logits'])[0]} "
        "differs): name the one that builds it, as package.module:function if it is your own."
    )


def _logits(plain: Backbone, images: Tensor) -> Tensor:
    """(B, classes) on the CPU, as in evaluation; the network's modules are in the modes they were."""
    with evaluating(plain):
        return plain(images).cpu()


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
