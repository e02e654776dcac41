"""Several processes for one run: the one that was started leads, the others follow it step by step."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import wait
from typing import Any

import torch
from torch import distributed

from spnet.errors import DivergedError, UserError
from spnet.jobs.orphan import end_with
from spnet.training.devices import Place, take_place

PATIENCE = timedelta(hours=12)
"""For the slowest process of a step: the leader evaluates and writes between two epochs."""


@contextlib.contextmanager
def followed(place: Place, work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run `work(place, *arguments)` in the other processes of a run until the block ends; with one process nothing
    happens. Arguments are pickled.

    Raises:
        UserError: a process has ended before its time.
    """
    if place.world_size == 1:
        yield
        return
    context = multiprocessing.get_context("spawn")
    order = pickle.dumps(
        (work, arguments)
    )  # plain bytes: torch would share tensors, which small containers lack room for
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        ready, theirs = context.Pipe(duplex=False)
        others = [
            context.Process(
                target=_follow, args=(rank, place.world_size, torch.get_num_threads(), meeting, theirs, order)
            )
            for rank in range(1, place.world_size)
        ]
        try:
            for process in others:
                process.start()
            theirs.close()
            _await(others, ready)
            _meet(place, meeting)
            yield
        except RuntimeError as error:  # what the group raises when one of it is gone
            if isinstance(error, DivergedError):
                raise
            raise _ended(others) or error from error
        finally:
            for process in others:
                process.kill()
                process.join()
            if distributed.is_initialized():
                distributed.destroy_process_group()


def _await(others: list[Any], ready: Any) -> None:
    """Until every process has said that it is there."""
    missing = len(others)
    while missing:
        if ready not in wait([ready, *(process.sentinel for process in others)]):
            raise _ended(others) or RuntimeError("a process of this run did not start")
        ready.recv()
        missing -= 1


def _ended(others: list[Any]) -> UserError | None:
    """Which process is gone; None when all are there."""
    for rank, process in enumerate(others, 1):
        process.join(1)
        if process.exitcode is not None:
            return UserError(
                f"process {rank + 1} of {len(others) + 1} ended (exit code {process.exitcode}); the run goes on with "
                "--resume from its last epoch."
            )
    return None


def _meet(place: Place, meeting: str) -> None:
    backend = "nccl" if place.device.type == "cuda" else "gloo"
    distributed.init_process_group(
        backend, init_method=meeting, rank=place.rank, world_size=place.world_size, timeout=PATIENCE
    )


def _follow(rank: int, world_size: int, threads: int, meeting: str, ready: Any, order: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader ends us
    end_with(os.getppid())
    torch.set_num_threads(threads)
    work, arguments = pickle.loads(order)
    place = take_place(rank, world_size)
    ready.send(rank)
    _meet(place, meeting)
    with contextlib.suppress(DivergedError):  # the leader sees it too, and speaks
        work(place, *arguments)
    while True:
        time.sleep(60)  # until the leader has done with the group
