"""What a run computes on and in which precision."""

import contextlib
import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from spnet.errors import UserError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""glibc's numbers (malloc.h) for: free top memory kept; extra memory asked for at a time; size served by mmap."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_devices(devices: int) -> None:
    """Raise `UserError` for more processes than there are devices, or cores where there is no CUDA device."""
    if devices < 1:
        raise UserError(f"--devices must be at least 1, not {devices}.")
    if devices > 1 and distributed.is_torchelastic_launched():
        raise UserError("--devices starts processes, and torchrun has started them: leave it out.")
    if devices == 1:
        return
    cuda = torch.cuda.device_count()
    here = cuda or cores()
    if devices > here:
        what = "CUDA devices" if cuda else "cores"
        raise UserError(
            f"--devices {devices}: one process each, and this machine has {here} {what}: take at most {here}."
        )


def reuse_freed_memory() -> None:
    """Let this process keep the memory it frees, for the next step needs as much again.

    By default glibc gives large tensors back to the system each time, and every step waits for fresh pages: 5 to 8 %
    of an SP-Net step on two cores. Does nothing where the C library has no `mallopt`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 << 20)


@cache
def has_bf16(device_type: str) -> bool:
    """Whether bf16 is faster here: by matrix instructions. Emulated bf16 is slower than fp32, and so is that of vector
    instructions alone (avx512_bf16): what they win is lost to the conversions around small layers."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")  # `bf16`: how ARM calls it
    words = flags.read_text().split() if flags.is_file() else []
    return device_type == "cpu" and ("amx_bf16" in words or "bf16" in words)


def resolve_precision(asked: str, device: torch.device) -> str:
    """`auto` -> `bf16` where the device has the instructions, else `fp32`."""
    if asked != "auto":
        return asked
    return "bf16" if has_bf16(device.type) else "fp32"


def autocast(precision: str, device: torch.device) -> Any:
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
