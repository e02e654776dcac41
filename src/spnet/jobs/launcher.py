"""How a run of a list is started and told to have ended: the two protocols, and what does it on this machine.

A worker is a process of its own (`python -m spnet.jobs.worker`), so that a crash costs one run. Over a cluster:
`spnet.jobs.on_ray`.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spnet.files import cannot_write
from spnet.runs.config import RunConfig


class Job(Protocol):
    """A training under way."""

    def poll(self) -> int | None:
        """Exit code, or None while it runs. At 0 its record lies in its folder."""
        ...

    def stop(self) -> None:
        """End it; what it has done stays, and its run can be launched again."""
        ...


class Launcher(Protocol):
    """The door for an engine of any kind: start "train this config into that folder" and return at once."""

    def __call__(self, config: RunConfig, folder: Path, threads: int) -> Job: ...


def start_process(config: RunConfig, folder: Path, threads: int) -> Job:
    """The local launcher: one Python process a run; it dies with this one, so nothing trains twice at a time."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        log = open(log_of(folder), "ab")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise cannot_write(folder, error) from error
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "spnet.jobs.worker", str(folder), str(os.getpid())]
    with log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
    assert process.stdin is not None
    process.stdin.write(json.dumps(config.to_json()).encode())
    process.stdin.close()
    return _Process(process)


def train_here(config: RunConfig, folder: Path, threads: int) -> Job:
    """The launcher without a process: trains before it returns."""
    from spnet.jobs.worker import train

    return _Done(train(config, folder))


def log_of(folder: Path) -> Path:
    """What the run in this folder says."""
    return Path(f"{folder}.log")


@dataclass
class _Done:
    code: int

    def poll(self) -> int:
        return self.code

    def stop(self) -> None: ...


@dataclass
class _Process:
    process: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
