"""Taking over a plain state dict of the original network: whatever fits by name and shape, and a report of what did."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spnet.errors import UserError
from spnet.network.dynamic import DynamicNetwork


@dataclass(frozen=True)
class Taken:
    """Names as in the original network.

    Attributes:
        taken: copied into the backbone.
        reshaped: in both, of another shape (a classifier for other classes); the network's own are kept.
        missing: of the backbone, not in the state.
        unused: of the state, not in the backbone.
    """

    taken: tuple[str, ...]
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} tensors taken"]
        for names, words in ((self.reshaped, "of another shape"), (self.missing, "missing"), (self.unused, "unused")):
            if names:
                parts.append(f"{len(names)} {words} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
        return "; ".join(parts)


@torch.no_grad()
def take_state(net: DynamicNetwork, state: Mapping[str, Tensor]) -> Taken:
    """Copy a state dict of the plain network into the backbone of `net`; only a classifier may differ in shape.

    Raises:
        UserError: the state is another network's: tensors of the backbone are missing or have other shapes, the
            classifier's aside. Nothing is changed then.
    """
    own = net.backbone.state_dict()
    taken = [name for name in own if name in state and state[name].shape == own[name].shape]
    reshaped = [name for name in own if name in state and state[name].shape != own[name].shape]
    missing = [name for name in own if name not in state]
    last = _classifier(net)
    strange = [name for name in (*missing, *reshaped) if name not in last]
    if strange:
        words = "has no" if strange[0] in missing else "has another shape of"
        raise UserError(f"the state dict belongs to another network: it {words} '{strange[0]}' ({net.backbone.name}).")
    for name in taken:
        own[name].copy_(state[name])
    unused = [name for name in state if name not in own]
    return Taken(tuple(taken), tuple(reshaped), tuple(missing), tuple(unused))


def _classifier(net: DynamicNetwork) -> set[str]:
    """Names of the head's last layer's tensors."""
    layers = [part for part in net.backbone.head.modules() if next(part.children(), None) is None]
    ids = {value.data_ptr() for value in layers[-1].parameters()}
    return {name for name, value in net.backbone.state_dict().items() if value.data_ptr() in ids}
