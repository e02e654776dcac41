"""The processes of one run, started by `torchrun` or by `--devices`: where each computes, how they meet and agree."""

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from spnet.errors import DivergedError, UserError
from spnet.version import __version__

T = TypeVar("T")
STEP = timedelta(minutes=30)
"""Longest wait for another process inside a step: a machine that vanished says nothing."""
PATIENCE = timedelta(hours=12)
"""Longest wait for the first process, which evaluates and writes between two epochs."""
GONE = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""Words of errors that come when a process is gone."""


@dataclass(frozen=True)
class Place:
    """Where one process of a run computes: its device, its rank among `world_size` processes."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    patient: Any = field(default=None, repr=False, compare=False)
    """The group in which processes wait for the first one."""

    @property
    def leads(self) -> bool:
        """Whether this process evaluates, writes and speaks."""
        return self.rank == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make()` gives in the first process, in all of them; it is called there alone, and may take hours."""
        if self.world_size == 1:
            return make()
        made: list[Any] = [make() if self.leads else None]
        distributed.broadcast_object_list(made, src=0, group=self.patient)
        return made[0]

    def refuse_differences(self, **told: Any) -> None:
        """Raise `UserError`, in every process, where one says something else than the first."""
        if self.world_size == 1:
            return
        everyone: list[dict[str, Any]] = [{} for _ in range(self.world_size)]
        distributed.all_gather_object(everyone, told, group=self.patient)
        first = everyone[0]
        for rank, theirs in enumerate(everyone):
            for name in told:
                if theirs[name] != first[name]:
                    pair = f": {_brief(theirs[name])}, not {_brief(first[name])}"
                    raise UserError(
                        f"process {rank + 1} of {self.world_size} differs from the first in its {name}{pair}; give "
                        "every process the same."
                    )


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def take_place(rank: int = 0, world_size: int = 1, local_rank: int = 0, patient: Any = None) -> Place:
    """Where process `rank` of a run computes, the one numbered `local_rank` of its machine: a CUDA device of its own,
    else the processor."""
    # cuDNN may pick algorithms that add up in another order each time; a resumed run must end in the same bits.
    torch.backends.cudnn.deterministic = True
    if not torch.cuda.is_available():
        return Place(torch.device("cpu"), rank, world_size, patient)
    here = torch.cuda.device_count()
    if world_size > 1 and local_rank >= here:
        raise UserError(
            f"process {rank + 1} of {world_size} has no CUDA device: this machine has {here}, start as many."
        )
    device = torch.device("cuda", local_rank if world_size > 1 else torch.cuda.current_device())
    torch.cuda.set_device(device)
    return Place(device, rank, world_size, patient)


def of_several() -> bool:
    """Whether `torchrun`, or torch's launcher on behalf of `--devices`, started this process beside others."""
    return distributed.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


@contextlib.contextmanager
def joined() -> Iterator[Place]:
    """This process's place in its run; of several, once all have met.

    They meet once and stay together until they end: what comes next in a program finds them there.

    Raises:
        UserError: their versions differ; or another one ended while the block ran.
    """
    if not of_several() and not distributed.is_initialized():
        yield take_place()
        return
    with _lost_is_said():
        yield _meet()


_met: dict[str, Any] = {}
"""The group that this process is in, and its place there."""


def _meet() -> Place:
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=STEP)
        atexit.register(part)
    if _met.get("group") is not distributed.group.WORLD:
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
        patient = distributed.new_group(backend="gloo", timeout=PATIENCE)
        place = take_place(rank, world_size, int(os.environ.get("LOCAL_RANK", rank)), patient)
        place.refuse_differences(versions=f"spnet {__version__}, torch {torch.__version__}")
        _met.update(group=distributed.group.WORLD, place=place)
    return _met["place"]


def part() -> None:
    """Leave the others, at the end of this process."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextlib.contextmanager
def _lost_is_said() -> Iterator[None]:
    """What gloo and NCCL raise when a process is gone, as one line."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, distributed.DistError) or any(word in str(error) for word in GONE)
        if isinstance(error, DivergedError) or not lost:
            raise
        raise LostError(
            "another process of this run has ended; the run goes on with --resume from its last epoch."
        ) from error


class LostError(UserError):
    """Another process of the run is gone."""
