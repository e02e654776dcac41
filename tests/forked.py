"""The command line in a process forked from the tests' own: it has descriptors, limits and a death of its own, without
the seconds in which a new interpreter imports torch."""

import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from subprocess import DEVNULL, PIPE
from typing import IO, Any

import torch
import torch._dynamo  # by the first optimizer: imported here once, not in every child

from spnet.cli import main


class Forked:
    """What `subprocess.Popen` of `python -m spnet ARGV` offers, as far as tests need it.

    `stdout` and `stderr` are PIPE, DEVNULL, an open file, or None: closed. `before` runs in the child.
    """

    def __init__(
        self, argv: list[str], stdout: int | IO | None, stderr: int | IO | None, before: Callable[[], object]
    ) -> None:
        self.stdout, out = _channel(stdout)
        self.stderr, err = _channel(stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        self._process = multiprocessing.get_context("fork").Process(target=_child, args=(argv, out, err, before))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        for mine, (asked, theirs) in ((self.stdout, (stdout, out)), (self.stderr, (stderr, err))):
            if theirs is not None and (mine is not None or asked == DEVNULL):
                os.close(theirs)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def start(
    *argv: object,
    stdout: int | IO | None = DEVNULL,
    stderr: int | IO | None = DEVNULL,
    before: Callable[[], object] = lambda: None,
) -> Any:
    """`spnet ARGV`, under way. A process that has used CUDA cannot be forked: there a new interpreter."""
    words = [str(word) for word in argv]
    if not torch.cuda.is_available():
        return Forked(words, stdout, stderr, before)
    command = [sys.executable, "-m", "spnet", *words]
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True, preexec_fn=before)


def run(*argv: object, before: Callable[[], object] = lambda: None) -> "subprocess.CompletedProcess[str]":
    """`spnet ARGV`, ended: its exit code and what it said, which is less than a pipe holds."""
    process = start(*argv, stdout=PIPE, stderr=PIPE, before=before)
    with process.stdout as out, process.stderr as err:
        said = out.read(), err.read()
    return subprocess.CompletedProcess([*map(str, argv)], process.wait(), *said)


def _channel(where: int | IO | None) -> tuple[IO[str] | None, int | None]:
    """(what is read of it here, the child's descriptor)."""
    if where == PIPE:
        ours, theirs = os.pipe()
        return open(ours), theirs
    if where == DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    return None, where if where is None or isinstance(where, int) else where.fileno()


def _child(argv: list[str], out: int | None, err: int | None, before: Callable[[], object]) -> None:
    """Streams as a new interpreter makes them: closed ones are None."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, target in ((1, out), (2, err)):
        os.close(number) if target is None else os.dup2(target, number)
    sys.stdout = sys.__stdout__ = None if out is None else open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = None if err is None else open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    code = 1
    try:
        before()
        code = main(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    os._exit(code)
