"""A plain state dict on disk: safetensors, or what `torch.save` wrote. Tensors are read, nothing is executed."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from spnet.errors import UserError, out_of_memory
from spnet.runs import weights

NESTED = ("state_dict", "model_state_dict", "model", "ema_state_dict")
"""Under which of these keys training programs keep the state dict beside other things."""
PARALLEL = "module."
"""What `DataParallel` puts before every name."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name.

    Raises:
        UserError: the file cannot be read, is neither safetensors nor a torch file of tensors, or holds NaN.
    """
    try:
        state = weights.read(path) if path.suffix == ".safetensors" else _tensors_of(torch_file(path))
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path} holds no state dict that can be read without running code ({reason[0][:100]}): give a safetensors "
            "file, or one that torch.save wrote of model.state_dict()."
        ) from error
    if (wrong := weights.unfit(state)) is not None:
        raise UserError(f"{path}: {wrong}.")
    return state


def torch_bytes(record: Any) -> bytes:
    """What `torch.save` makes of tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(record, buffer)
    return buffer.getvalue()


def torch_file(path: Path | IO[bytes]) -> Any:
    """What `torch.save` wrote, onto the CPU, without running code from it. A damaged file raises almost anything:
    pickle, zip, EOF, runtime errors; what torch warns of on the way is of its own inner workings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensors_of(held: Any) -> dict[str, Tensor]:
    for key in NESTED:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise ValueError("it holds no dictionary of tensors")
    parallel = all(name.startswith(PARALLEL) for name in held)
    return {name.removeprefix(PARALLEL) if parallel else name: value for name, value in held.items()}


def digest(path: Path) -> str:
    """Twelve hex digits of the file's bytes, by which a record names it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
