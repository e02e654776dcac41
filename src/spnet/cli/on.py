"""`--on ray[:ADDRESS]`, the same for every verb that can work over a cluster."""

import argparse
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from spnet.errors import UserError


def add_on(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--on",
        metavar="ray[:HOST:PORT]",
        help="compute over a Ray cluster (pip install 'spnet[cluster]'): the one at this address, or on this machine",
    )


def add_runs_on(parser: argparse._ActionsContainer) -> None:
    """For lists of runs: how many at a time, where each is trained, with how much."""
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="runs at a time (0: in this process); default 1, on a cluster what it holds",
    )
    add_on(parser)
    parser.add_argument(
        "--run-cpus", type=float, metavar="N", help="with --on: CPUs that each run takes; default --threads, or 1"
    )
    parser.add_argument(
        "--run-gpus",
        type=float,
        metavar="N",
        help="with --on: GPUs that each run takes, such as 0.25 for four on one; default 0",
    )


@contextmanager
def speaking_aside() -> Iterator[None]:
    """Until the block ends, prints go to stderr: Ray tells of lost nodes on stdout, which is for results."""
    with redirect_stdout(_FirstLines(sys.stderr)):
        yield


class _FirstLines(io.TextIOBase):
    """Passes on the first line of each text: Ray tells of a lost node with a page of its log in one."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        end = "\n" if text.endswith("\n") else ""
        self.stream.write(text.split("\n")[0] + end)
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


@contextmanager
def launching(args: argparse.Namespace, data: Iterable[str]) -> Iterator[dict[str, Any]]:
    """How `run_all` starts the runs, until the block ends: processes here, or tasks of a cluster whose nodes have the
    `data` sets (`NAME` or `NAME:PATH`)."""
    if args.on is None:
        if args.run_cpus is not None or args.run_gpus is not None:
            raise UserError("--run-cpus and --run-gpus go with --on ray; here --workers runs share the cores.")
        yield {"workers": 1 if args.workers is None else args.workers, "threads": args.threads}
        return
    cpus, gpus = args.run_cpus, args.run_gpus or 0.0
    cpus = float(args.threads or 1) if cpus is None else cpus
    if not (cpus >= 0 and gpus >= 0 and 0 < cpus + gpus < float("inf")):
        raise UserError("--run-cpus and --run-gpus must be 0 or more, and one of them more than 0.")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers must be at least 1 with --on; not {args.workers}.")
    from spnet.cluster import connected, slots
    from spnet.data.spec import parse
    from spnet.jobs.on_ray import RayLauncher

    places = [path for spec in data if (path := parse(spec).path) is not None]
    with speaking_aside(), connected(args.on, places) as ray:
        room = slots(ray, cpus, gpus)
        threads = args.threads or max(1, int(cpus))
        yield {"workers": args.workers or room, "threads": threads, "launch": RayLauncher(ray, cpus, gpus)}
