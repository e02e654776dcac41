"""Is a resume state one that this run can have left? A file may say anything: everything is held against the config
and the network before the first step, and before anything is written."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spnet.errors import UserError, out_of_memory
from spnet.runs.config import RunConfig
from spnet.runs.facts import ComputedWith
from spnet.runs.forms import Misfit, fill
from spnet.runs.record import EpochRow
from spnet.runs.weights import unfit

LOGGED = ("epoch", "phase", "time", "seconds", "train_images", "cost_ratio")
"""What every row of a log has, and what is read from it when the run ends."""


def check_tensors(state: dict[str, Any], source: Path) -> None:
    """`UserError` unless the weights are weights, and finite; `source` is the file the state is from."""
    _refuse(source, {name: _tensors(state[name]) for name in ("net", "method")})


def check_progress(state: dict[str, Any], config: RunConfig, source: Path) -> None:
    """`UserError` for counts that do not agree with each other or with the config, or a log of another kind."""
    epoch = state["epoch"]
    counted = type(epoch) is int and 0 <= epoch <= config.training.epochs
    logged = counted and _log(state["rows"], epoch, _watched(config))
    place = state.get("computed_with") is None or _fills(ComputedWith, state["computed_with"])
    _refuse(
        source,
        {
            "computed_with": place,
            "epoch": counted,
            "rows": logged,
            "optimizer": (state["optimizer"] is None) == (epoch == 0),
        },
    )


def check_decisions(state: dict[str, Any], shape: tuple[int, int], source: Path) -> None:
    """`UserError` unless the state's decisions are those of so many (images, blocks) at the last epoch's end."""
    previous = state["previous_decisions"]
    fits = isinstance(previous, Tensor) and previous.dtype == torch.int64 and tuple(previous.shape) == shape
    _refuse(source, {"previous_decisions": previous is None if state["epoch"] == 0 else fits})


def fit_optimizer(optimizer: torch.optim.Optimizer, state: Any, source: Path) -> None:
    """Fill an optimiser from a state; `UserError` unless it is one of the same settings over the same parameters."""
    own = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = ("step", "exp_avg", "exp_avg_sq") if isinstance(optimizer, torch.optim.Adam) else ("momentum_buffer",)
    try:
        fits = [_settings(group) for group in state["param_groups"]] == [_settings(group) for group in own]
        for index, entry in state["state"].items():
            shape = parameters[index].shape
            whole = {name: value for name, value in entry.items() if value is not None}
            shapes = [() if name == "step" else shape for name in whole]
            fits = fits and set(entry) == set(kept) and [value.shape for value in whole.values()] == shapes
            fits = fits and _tensors(whole) and (whole.keys() == entry.keys() or len(kept) == 1)
        if not fits:
            raise ValueError
        optimizer.load_state_dict(state)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        raise _damaged(source, "optimizer") from error
    for group, ours in zip(optimizer.param_groups, own, strict=True):
        group.update({name: value for name, value in ours.items() if name != "params"})  # the form of this device


def _refuse(source: Path, fits: dict[str, bool]) -> None:
    """Name the first entry that does not fit."""
    for name, fine in fits.items():
        if not fine:
            raise _damaged(source, name)


def _damaged(source: Path, name: str) -> UserError:
    return UserError(
        f"{source} is damaged: it is no state of this run (its '{name}' cannot be). Restore it or start the run anew."
    )


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """What a resumed run must share; the rate follows from the epoch, the form of the step from the device."""
    return {name: value for name, value in group.items() if name not in ("lr", "fused", "foreach", "capturable")}


def _watched(config: RunConfig) -> str:
    return "validation_accuracy" if config.training.validation > 0 else "probe_accuracy"


def _log(rows: Any, epoch: Any, watched: str) -> bool:
    """One row an epoch, in order, with what is read from it later."""
    if not isinstance(rows, list) or len(rows) != epoch or not all(_fills(EpochRow, row) for row in rows):
        return False
    whole = all(row.get(name) is not None for row in rows for name in (*LOGGED, watched))
    return whole and _plain(rows) and [row["epoch"] for row in rows] == list(range(1, epoch + 1))


def _fills(form: type, value: Any) -> bool:
    try:
        fill(form, value)
    except Misfit:
        return False
    return True


def _plain(value: Any) -> bool:
    """Whether JSON can say it."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and _plain(part) for name, part in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _tensors(state: Any) -> bool:
    named = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    return named and all(not value.is_sparse for value in state.values()) and unfit(state) is None
