"""A list of runs over a Ray cluster of two nodes, one of them killed on the way, against the same list on this machine.

    python benchmarks/lost_node.py [--runs 12] [--out benchmarks/results/lost-node.json]

Digits, a few images each. The processes that train are counted in /proc (Linux): a run that is started twice (the
record says when, in seconds after the kill) was lost with its node or, if its record was there already, repeated for
nothing. Afterwards the list is called once more, which must start nothing, and trained anew without a cluster, which
must give the same table and the same records.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nodes import nodes

from spnet.files import write_json
from spnet.training.finish import made_with

TINY = ("--method", "convnet-aig", "--backbone", "resnet8", "--data", "digits")
TINY += ("--subset", "256", "--batch-size", "64", "--epochs", "4", "--validation", "0", "--threads", "1")
VARIES = {"train_seconds", "made_with", "images_per_second"}
"""What two records of one training may differ in."""
LOOK = 0.1
"""Seconds between two looks at the processes."""
FINISHED_BEFORE = 2
"""Runs that are finished before the node is killed."""


def sweep(place: Path, runs: int, *more: str) -> list[str]:
    seeds = ",".join(map(str, range(runs // 2)))
    grid = ("--grid", "target=0.4,0.6", "--grid", f"seed={seeds}")
    return [sys.executable, "-m", "spnet", "sweep", *TINY, *grid, "--json", "--out", str(place), *more]


def said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a list ended with exit code {process.returncode}: {out}")
    return json.loads(out)


class Watch:
    """Which processes have trained which run since when, and which of those runs had a record by then."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.started: dict[str, dict[int, float]] = {}
        self.repeated: list[str] = []

    def look(self) -> None:
        done = self.finished()
        for pid, name in self.training():
            starts = self.started.setdefault(name, {})
            if pid not in starts and not starts.keys() & {*ancestors(pid)}:  # a fork looks like its parent for a moment
                starts[pid] = time.monotonic()
                if name in done:
                    self.repeated.append(name)

    def training(self) -> Iterator[tuple[int, str]]:
        """(process, hash of its run)."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except (OSError, UnicodeDecodeError):  # it has just ended
                continue
            if "spnet.jobs.worker" in words:
                folder = Path(words[words.index("spnet.jobs.worker") + 1])
                if folder.parent == self.place / "work":
                    yield int(entry.name), folder.name

    def finished(self) -> set[str]:
        return {path.stem for path in (self.place / "results").glob("*.json")}

    def on(self, raylet: int) -> list[str]:
        """Runs that a node is in the middle of: past their start, not yet finished."""
        begun = [
            (pid, name) for pid, name in self.training() if (self.place / "work" / name / "metrics.jsonl").exists()
        ]
        return [name for pid, name in begun if raylet in ancestors(pid)]

    def until_ended(self, process: "subprocess.Popen[str]", act: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """What the list says at its end; `act` is called between two looks."""
        while process.poll() is None:
            self.look()
            act()
            time.sleep(LOOK)
        return said(process)


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(pid)
    return found


def killed_on_the_way(place: Path, runs: int) -> dict[str, Any]:
    """The list over two nodes, one of which is killed in the middle of a run; then once more."""
    watch, killed = Watch(place), {}
    cores = os.sched_getaffinity(0)
    with nodes([cores, cores]) as cluster:
        (node,) = cluster.worker_nodes
        raylet = node.all_processes["raylet"][0].process.pid

        def kill() -> None:
            done = watch.finished()
            if not killed and len(done) >= FINISHED_BEFORE and (training := watch.on(raylet)):
                killed.update(at=time.monotonic(), finished_before=len(done), it_was_training=training)
                cluster.remove_node(node, allow_graceful=False)

        on = ("--on", f"ray:{cluster.address}")
        answer = watch.until_ended(start(sweep(place, runs, *on)), kill)
        again = Watch(place)
        again.until_ended(start(sweep(place, runs, *on)))
    at = killed.pop("at", 0.0)
    starts = {name: [round(when - at, 1) for when in starts.values()] for name, starts in watch.started.items()}
    return {
        "runs": answer["runs"],
        "failed": answer["failed"],
        "killed": killed,
        "started_again": {name: seconds for name, seconds in starts.items() if len(seconds) > 1},
        "finished_and_started_again": watch.repeated,
        "records": len(watch.finished()),
        "started_by_a_second_call": sorted(again.started),
    }


def start(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def table(place: Path) -> list[str]:
    """Its rows without the seconds of the last column."""
    return [line.rpartition(",")[0] for line in (place / "sweep.csv").read_text().splitlines()]


def records(place: Path) -> dict[str, Any]:
    return {path.name: constant(json.loads(path.read_text())) for path in (place / "results").glob("*.json")}


def constant(value: Any) -> Any:
    """A record without what varies."""
    if isinstance(value, dict):
        return {name: constant(inner) for name, inner in value.items() if name not in VARIES}
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description="A node killed in the middle of a list of runs.")
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lost-node.json"))
    args = parser.parse_args()
    if args.runs < 6 or args.runs % 2:
        parser.error("--runs must be even, and 6 or more: some before the kill, some on their way, some after.")
    began = made_with("auto")
    with tempfile.TemporaryDirectory() as name:
        there, here = Path(name, "there"), Path(name, "here")
        found = killed_on_the_way(there, args.runs)
        said(start(sweep(here, args.runs, "--workers", "1")))
        found["table_equal"] = table(there) == table(here)
        found["records_equal"] = records(there) == records(here)
        listed = [word if word != str(here) else "OUT" for word in sweep(here, args.runs, "--on", "ray:HOST:PORT")]
    conditions = {**asdict(began), "ray": importlib.import_module("ray").__version__, "nodes": "2 of 1 CPU"}
    command = f"python benchmarks/lost_node.py --runs {args.runs}"
    row = {"command": command, "list": " ".join(["python", *listed[1:]]), **found, "conditions": conditions}
    print(json.dumps(row, indent=1))
    write_json(args.out, row)
    good = found["table_equal"] and found["records_equal"] and found["records"] == args.runs and found["killed"]
    good = good and not (found["failed"] or found["finished_and_started_again"] or found["started_by_a_second_call"])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
