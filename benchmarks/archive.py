"""Twenty thousand photos through `predict_files`: memory, a kill and what follows it. How fast: `batch.py`.

    python benchmarks/archive.py [--photos 20000] [--network cifar10-small] [--out FILE]

Random JPEGs of 256 px lie in a temporary folder as Parquet. A process of its own classifies them and says what memory
it holds on the way; a second one is killed half-way and called again, and the two files are compared byte for byte.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import resident_mib
from photos import write

import spnet
from spnet.files import write_json
from spnet.training.finish import made_with


def classify(network: str, files: list[str], out: str, kill_at: int, answer: Any) -> None:
    """In a process of its own; `kill_at`: photos after which it is killed, 0 for never."""
    held: dict[int, float] = {}
    first = 0.0

    def report(done: int, photos: int) -> None:
        nonlocal first
        first = first or time.perf_counter()
        if kill_at and done >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        step = max(1, photos // 10)
        if done // step not in held:
            held[done // step] = round(resident_mib(), 1)

    made = spnet.predict_files(network, out, parquet=files, report=report)
    seconds = time.perf_counter() - first
    answer.put({"photos": made.photos, "kept": made.kept, "seconds": seconds, "resident_mib": [*held.values()]})


def in_a_process(*how: Any) -> dict[str, Any] | None:
    """What `classify` answers; None where it was killed."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=classify, args=(*how, answer))
    process.start()
    killed = bool(how[-1])
    found = None if killed else answer.get()
    process.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Photos through a network, by the thousand.")
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--network", default="cifar10-small")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/archive.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, args.photos)
        files = sorted(map(str, folder.glob("train-*.parquet")))
        whole, killed = str(folder / "whole.parquet"), str(folder / "killed.parquet")
        row: dict[str, Any] = {"whole": in_a_process(args.network, files, whole, 0)}
        in_a_process(args.network, files, killed, args.photos // 2)
        row["gone_on"] = in_a_process(args.network, files, killed, 0)
        row["identical"] = Path(whole).read_bytes() == Path(killed).read_bytes()
    print(json.dumps(row, indent=1))
    write_json(args.out, {"made_with": made_with("fp32"), "network": args.network, **row})
    return 0


if __name__ == "__main__":
    sys.exit(main())
