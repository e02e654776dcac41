"""`--devices N`: torch's elastic launcher starts the processes of a run, ends all when one fails, and ends with them.

The caller's process does not compute. What the first process says on its way comes through a pipe, and so does what it
returns or raises.
"""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from spnet.errors import UserError
from spnet.training.distributed import LostError, part

GRACE = 3.0
"""Seconds in which a process that has failed waits for the launcher to see which one failed first."""
DONE, FAILED = "done", "failed"


def on_devices(
    devices: int, work: Callable[..., Any], arguments: Mapping[str, Any], told: Mapping[str, Callable[..., None]]
) -> Any:
    """What `work(**arguments, **told)` returns in the first of `devices` processes of this machine.

    Args:
        work, arguments: are pickled.
        told: functions that the first process may call on its way; they run here.

    Raises:
        UserError: a process was killed. What `work` raises, of the first process that says why.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    pipes = [multiprocessing.get_context("spawn").Pipe(duplex=False) for _ in range(devices)]
    # Plain bytes: torch would share tensors, which small containers lack room for.
    order = pickle.dumps((work, dict(arguments), tuple(told)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        start_method="spawn",
        shutdown_timeout=10,
    )
    mail = _Mail([reader for reader, _ in pipes], told)
    try:
        with mail, _launcher_is_quiet():
            elastic_launch(config, _work)(order, [writer for _, writer in pipes], torch.get_num_threads())
    except ChildFailedError as failed:
        raise why(failed, mail.of(FAILED), devices) from failed
    except SignalException as error:
        signal.raise_signal(error.sigval)  # as if it had met no launcher: Ctrl-C is a KeyboardInterrupt again
    if mail.error is not None:
        raise mail.error
    return mail.of(DONE)[0]


def why(failed: Any, said: dict[int, Exception], devices: int) -> Exception:
    """The error to raise for the processes that failed: of one that was killed, else what the first of them says."""
    rank, process = next(iter(failed.failures.items()))
    if process.exitcode >= 0 and said:
        rank = min(said)
        return said[rank]
    how = f"signal {-process.exitcode}" if process.exitcode < 0 else f"exit code {process.exitcode}"
    return UserError(
        f"process {rank + 1} of {devices} ended ({how}); the run goes on with --resume from its last epoch."
    )


def _work(order: bytes, writers: Sequence[Connection], threads: int) -> None:
    """One process of the run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
    torch.set_num_threads(threads)
    rank = int(os.environ["RANK"])
    say = writers[rank].send
    work, arguments, names = pickle.loads(order)
    told = {name: partial(_tell, say, name) for name in names}
    try:
        result = work(**arguments, **told)
    except Exception as error:
        say((FAILED, _sendable(error)))
        if rank > 0 or isinstance(error, LostError):
            time.sleep(GRACE)
        raise SystemExit(2) from None
    part()
    if rank == 0:
        say((DONE, result))


def _tell(say: Callable[[Any], None], name: str, *values: Any) -> None:
    say((name, values))


def _sendable(error: Exception) -> Exception:
    """The error itself, where it survives a pipe."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Mail:
    """Reads what the processes say while the block runs: calls what is told, keeps results and errors.

    Args:
        readers: one a process, in order.
    """

    def __init__(self, readers: Sequence[Connection], told: Mapping[str, Callable[..., None]]) -> None:
        self.readers = readers
        self.told = told
        self.kept: list[tuple[str, int, Any]] = []
        self.error: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join(5)  # a process that was killed in the middle of a word leaves it unfinished

    def of(self, kind: str) -> dict[int, Any]:
        """What processes said of this kind, by rank."""
        return {rank: value for name, rank, value in self.kept if name == kind}

    def _read(self) -> None:
        while True:
            ended = self._ended.is_set()  # asked first: what was said before is still read
            ready = wait(self.readers, 0.1)
            if ended and not ready:
                return
            for reader in ready:
                kind, value = reader.recv()  # type: ignore[union-attr]
                if kind not in self.told:
                    self.kept.append((kind, self.readers.index(reader), value))  # type: ignore[arg-type]
                    continue
                try:
                    self.told[kind](*value)
                except Exception as error:  # of the caller, who gets it back at the end
                    self.error = self.error or error


@contextlib.contextmanager
def _launcher_is_quiet() -> Iterator[None]:
    """The launcher speaks of signals and tracebacks, and takes the handlers of signals for itself."""
    logs = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("torch.")]
    speaking = [log for log in logs if not log.disabled]
    taken = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]
    handlers = {number: signal.getsignal(number) for number in taken}
    for log in speaking:
        log.disabled = True
    try:
        yield
    finally:
        for log in speaking:
            log.disabled = False
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
