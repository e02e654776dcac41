"""State dicts under the names of the network a backbone was made from, so that its checkpoints load as they are.

The parts of an adapted network have names of their own (`stem.0.weight`); its state dict has the original's
(`conv1.weight`). Parameters are the same objects.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn


def original_names(module: nn.Module, original: nn.Module) -> dict[str, str]:
    """Own name -> the original's, for every tensor the two share."""
    theirs = {id(value): name for name, value in original.state_dict(keep_vars=True).items()}
    own = module.state_dict(keep_vars=True).items()
    return {name: theirs[id(value)] for name, value in own if id(value) in theirs}


def keep_names(module: nn.Module, names: Mapping[str, str]) -> None:
    """Make `module.state_dict()` and `load_state_dict` use the original's names: `names` maps own ones to those."""
    module.register_state_dict_post_hook(partial(_rename_saved, dict(names)))
    module.register_load_state_dict_pre_hook(partial(_rename_loaded, {theirs: own for own, theirs in names.items()}))


def _rename_saved(names: dict[str, str], module: nn.Module, state: dict[str, Tensor], prefix: str, meta: Any) -> None:
    _rename(state, names, prefix)


def _rename_loaded(names: dict[str, str], module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    _rename(state, names, prefix)


def _rename(state: dict[str, Tensor], names: Mapping[str, str], prefix: str) -> None:
    """All at once: one tensor's new name may be another's old one."""
    moved = {prefix + new: state.pop(prefix + old) for old, new in names.items() if prefix + old in state}
    state.update(moved)
