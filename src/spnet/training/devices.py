"""Where a run computes and in which precision."""

import contextlib
import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spnet.errors import UserError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""glibc's numbers (malloc.h) for: free top memory kept; extra memory asked for at a time; size served by mmap."""


@dataclass(frozen=True)
class Place:
    """Where one process of a run computes: its device, its rank among `world_size` processes."""

    device: torch.device
    rank: int = 0
    world_size: int = 1


def take_place(rank: int = 0, world_size: int = 1) -> Place:
    """Where process `rank` of a run computes: a CUDA device of its own, else the processor."""
    # cuDNN may pick algorithms that add up in another order each time; a resumed run must end in the same bits.
    torch.backends.cudnn.deterministic = True
    if not torch.cuda.is_available():
        return Place(torch.device("cpu"), rank, world_size)
    device = torch.device("cuda", rank if world_size > 1 else torch.cuda.current_device())
    torch.cuda.set_device(device)
    return Place(device, rank, world_size)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_devices(devices: int) -> None:
    """Raise `UserError` for more processes than there are devices, or cores where there is no CUDA device."""
    if devices < 1:
        raise UserError(f"--devices must be at least 1, not {devices}.")
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


class MeanOverProcesses:
    """Differentiable mean over processes: `step.reduce`. With one process it is the identity."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size

    def __call__(self, value: Tensor) -> Tensor:
        if self.world_size == 1:
            return value
        from torch.distributed.nn.functional import all_reduce

        return all_reduce(value) / self.world_size


def average_gradients(parameters: list[torch.nn.Parameter], world_size: int) -> None:
    """DDP by hand: every trainable parameter has a gradient (training is dense), so one flat all-reduce is enough."""
    if world_size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= world_size
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
