"""Weights as bytes of a safetensors file, with a checksum of what they say: one flipped bit is noticed.

The checksum stands in the file's metadata (`sha256`) and covers each tensor's name, type, shape and bytes. Files
without one, such as those of older versions, are read all the same.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def checksum(state: Mapping[str, Tensor]) -> str:
    """64 hex digits over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def to_bytes(state: dict[str, Tensor]) -> bytes:
    """The content of a safetensors file."""
    from safetensors.torch import save

    return save(state, metadata={"sha256": checksum(state)})


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; OSError if it is missing, damaged, or holds what is no finite number."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
            expected = (file.metadata() or {}).get("sha256")
    except SafetensorError as error:
        raise OSError(str(error)) from error
    if expected is not None and expected != checksum(state):
        raise OSError("its bytes are not those that were written")
    if (wrong := unfit(state)) is not None:
        raise OSError(wrong)
    return state


def unfit(state: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the first tensor that no training leaves: values that float32 cannot hold as finite numbers,
    or variances below 0; None if all are fine."""
    for name, value in state.items():
        if value.is_complex() or not bool(value.to(torch.float32).isfinite().all()):
            return f"'{name}' holds NaN or infinite values"
        if name.endswith("running_var") and bool((value < 0).any()):
            return f"'{name}' holds variances below 0"
    return None
