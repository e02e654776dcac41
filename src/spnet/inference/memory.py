"""What an engine holds in memory, measured on the process itself: what it grew by while sessions were opened."""

import ctypes
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")

_STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Memory:
    """In bytes.

    Attributes:
        weights: of the network's parameters and buffers, which the engine shares with whoever else holds the network.
        opened: what the process grew by during the first call of each program: the sessions' own copies of the weights
            and the memory they compute in, at the batch size of that call. 0 before the first image; None where the
            system does not say (it is Linux that does). What other threads took at that moment counts in, and what
            libraries load at their first use in a process; a session that a trace opens later for its router logits
            does not.
    """

    weights: int
    opened: int | None


class Growth:
    """What the process grew by during the first call of each program."""

    def __init__(self) -> None:
        self._grown: dict[Hashable, int | None] = {}

    def __call__(self, key: Hashable, run: Callable[[], T]) -> T:
        """What `run` returns; the first call under a key is measured."""
        if key in self._grown:
            return run()
        before = resident()
        found = run()
        after = resident()
        self._grown.setdefault(key, None if before is None or after is None else max(0, after - before))
        return found

    @property
    def total(self) -> int | None:
        return added(self._grown.values())


def added(parts: Any) -> int | None:
    """The sum, or None where one part is not known."""
    parts = list(parts)
    return None if None in parts else sum(parts)


def weight_bytes(model: nn.Module) -> int:
    """Of parameters and buffers, each counted once."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def resident() -> int | None:
    """Bytes of this process in memory, without what its C library merely keeps for later; None where unknown."""
    if not _STATM.exists():
        return None
    if (trim := _malloc_trim()) is not None:
        trim(0)
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
