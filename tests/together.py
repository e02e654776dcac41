"""Processes that share a training, forked from the tests' own: what a launcher does, without its seconds of imports."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from io import StringIO
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from cases import Case
from tiny import part

from spnet import data
from spnet.runs.config import RunConfig
from spnet.training.fit import fit

BATCH = 31
"""Shared by two processes as 16 and 15, by three as 11, 10 and 10."""
LONG = [
    replace(case, epochs=5)
    for case in (Case("static"), Case("spnet"), Case("codinet"), Case("rdi-net", settings={"relation": 1.0}))
]
OTHERS = [
    Case("rdi-net", epochs=3, settings={"relation_form": "contrastive", "relation_queue": 40}),
    Case("skipnet", "spnet", settings={"gate": "ff1"}),
    Case("blockdrop", "sandwich", epochs=3),
]


def train(case: Case, out: Path, **more: Any) -> None:
    """Four steps an epoch, of a batch that no number of processes divides. The rate is low, so that rounding stays
    where it is: at 0.05 CoDiNet makes 4e-3 of 1e-7 in twenty steps, by itself in another memory layout too."""
    settings = {"batch_size": BATCH, "validation": 0.0, "lr": 1e-3, "precision": "fp32", "epochs": case.epochs}
    config = RunConfig(case.method, case.wrapper, "resnet8", "digits", {**settings, **case.settings})
    fit(config, part(data.load("digits"), train=127, test=20), out, **more)


def together(count: int, work: Callable[[int], object]) -> list[Any]:
    """What `work(rank)` answers in each of `count` processes; the first that fails ends the others, whose answer is
    then None. What a process raises is its answer."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(count)]

    def run(rank: int) -> None:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update({"MASTER_ADDR": "localhost", "TORCHELASTIC_RUN_ID": "tests"})
        try:
            answer = work(rank)
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = error
        pipes[rank][1].send(answer)

    children = [context.Process(target=run, args=(rank,)) for rank in range(count)]
    for child, (_, theirs) in zip(children, pipes, strict=True):
        child.start()
        theirs.close()
    answers: list[Any] = [None] * count
    waiting = {ours: rank for rank, (ours, _) in enumerate(pipes)}
    failed = False
    while waiting and not failed and (ready := wait(list(waiting), 120)):
        for ours in ready:
            rank = waiting.pop(ours)  # type: ignore[arg-type]
            with suppress(EOFError):  # it left without a word
                answers[rank] = ours.recv()  # type: ignore[union-attr]
            failed |= isinstance(answers[rank], Exception) or getattr(answers[rank], "code", 0) != 0
    for child in children:
        child.kill()
        child.join()
    return answers


class Said:
    """What a command said: exit code, stdout, stderr."""

    def __init__(self, command: Callable[[], int]) -> None:
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            self.code = command()
        self.out, self.err = out.getvalue(), err.getvalue()
