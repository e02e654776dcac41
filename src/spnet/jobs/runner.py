"""Lists of runs: each named by its config's hash, none ever trained twice, all of them safe to kill.

    results/<hash>.json       the record of a finished run; small, committed, shared by every table
    results/networks/<hash>/  its weights as well, for the few runs that a figure is drawn from
    work/<hash>/              the run folder while it trains; a killed one is resumed from its last epoch

What trains them is a `Launcher` (`spnet.jobs.launcher`): processes of this machine, or a cluster engine.
"""

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path

from spnet.errors import UserError
from spnet.files import read_json, write_bytes, write_json
from spnet.jobs.board import Board, kind
from spnet.jobs.launcher import Job, Launcher, log_of, start_process, train_here
from spnet.runs.config import RunConfig
from spnet.runs.record import Curves, RunResult, read_metrics, read_result, write_result
from spnet.runs.whole import lacking

NETWORKS = "networks"


def unique(runs: Sequence[RunConfig]) -> list[RunConfig]:
    """The same runs, each hash once, in order."""
    return list({run.hash: run for run in runs}.values())


def finished(run: RunConfig, results: Path, network: bool = False) -> bool:
    """Whether a run's record is there, and its weights where they are asked for."""
    kept = not network or (results / NETWORKS / run.hash / "model.safetensors").is_file()
    return kept and (results / f"{run.hash}.json").is_file()


def keep(run: RunConfig, folder: Path, results: Path, network: bool) -> RunResult:
    """Write a finished run's record, and its weights before where they are asked for: the record says that all is
    there."""
    if network:
        keep_network(folder, results / NETWORKS / run.hash)
    made = without_place(with_curves(folder), run)
    write_result(results / f"{run.hash}.json", made)
    return made


def keep_network(run: Path, kept: Path) -> None:
    """Copy what loading a network takes, the weights last: they say that the copy is whole."""
    from spnet.runs import folder

    write_json(kept / "config.json", folder.without_place(read_json(run / "config.json")))
    write_bytes(kept / "model.safetensors", (run / "model.safetensors").read_bytes())


def record(run: RunConfig, results: Path) -> RunResult:
    """The committed record of a finished run; `UserError` for one with values of the wrong kind."""
    return read_result(results / f"{run.hash}.json")


def check_record(run: RunConfig, results: Path) -> None:
    """`UserError` for a record that lacks what tables are made of, or is another run's."""
    path, found = results / f"{run.hash}.json", record(run, results)
    if (name := lacking(found)) is not None:
        raise UserError(f"{path} is damaged: '{name}' cannot be. Restore it, or delete it to train the run again.")
    if found.hash != run.hash:
        raise UserError(f"{path} is another run's record: restore it, or delete it to train the run again.")


def run_all(
    runs: Sequence[RunConfig],
    *,
    results: Path,
    work: Path,
    workers: int = 1,
    networks: Collection[str] = (),
    threads: int | None = None,
    launch: Launcher | None = None,
    show: Callable[[Board], None] = lambda board: None,
    pause: float = 0.5,
    time_limit: float | None = None,
) -> Board:
    """Train whatever of `runs` has no record yet; return the board, failures included.

    `networks` are the hashes of the runs whose weights are kept too; such a run is finished when both are there.
    `workers` processes train side by side; 0 trains in this one, which saves the start of many tiny runs. Each
    computes with `threads`; left out, they share the cores.
    Interrupted (Ctrl-C, kill -9, power, `time_limit` seconds gone), the next call goes on where this one was.
    """
    started = time.monotonic()
    if workers < 0:
        raise UserError(f"--workers must be at least 1, or 0 for this process; not {workers}.")
    launch = launch or (start_process if workers else train_here)
    workers = max(1, workers)
    planned = unique(runs)

    def is_finished(run: RunConfig) -> bool:
        return finished(run, results, network=run.hash in networks)

    waiting = [run for run in planned if not is_finished(run)]
    board = Board(planned, [run.hash for run in planned if run not in waiting], workers=workers)
    for run in planned:
        if finished(run, results) and isfinite(seconds := record(run, results).train_seconds):
            board.recorded.setdefault(kind(run), []).append(seconds)
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    jobs: dict[str, tuple[RunConfig, Job]] = {}
    try:
        while waiting or jobs:
            while waiting and len(jobs) < workers:
                run = waiting.pop(0)
                if is_finished(run):  # by another runner, meanwhile
                    board.finished.append(run.hash)
                    continue
                jobs[run.hash] = (run, launch(run, work / run.hash, threads))
                board.running[run.hash] = time.monotonic()
            for name, (run, job) in list(jobs.items()):
                code = job.poll()
                if code is None:
                    continue
                del jobs[name]
                took = time.monotonic() - board.running.pop(name)
                if code == 0 and (work / name / "result.json").is_file():
                    made = keep(run, work / name, results, network=name in networks)
                    board.finished.append(name)
                    # A resumed run took part of its time before this call.
                    board.measured.setdefault(kind(run), []).append(max(took, made.train_seconds))
                else:
                    log = log_of(work / name)
                    more = f", see {log}" if log.is_file() else ""
                    board.failed[name] = f"{run.label} seed {run.training.seed}: exit code {code}{more}"
            show(board)
            if time_limit is not None and time.monotonic() - started > time_limit:
                break
            if jobs:
                time.sleep(pause)
    finally:
        for _, job in jobs.values():
            job.stop()
    return board


def with_curves(folder: Path) -> RunResult:
    """A run's record: its result and the figures of each epoch, rounded."""
    return replace(read_result(folder / "result.json"), curves=Curves.of(read_metrics(folder)))


def without_place(made: RunResult, run: RunConfig) -> RunResult:
    """The run's record without the place where its data set lay: that is this machine's own affair."""
    return replace(made, config=replace(made.config, data=run.data_name))
