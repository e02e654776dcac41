"""Photos a second of `spnet.predict_files`: on this machine, over one Ray node of one core, over two.

    python benchmarks/batch.py [--photos 4000] [--data DIR] [--network cifar10-small] [--rounds 2] [--out FILE]

DIR holds Parquet files of photos; without it random JPEGs of 256 px are taken. Every measurement is a process of its
own that may use as many cores as there are nodes, Ray's own processes included, so that one node and two, one core here
and two, are on equal terms; the measurements alternate. The first quarter of the photos, in which engines start, does
not count. Run it on a machine that does nothing else.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from nodes import nodes, on_cores
from photos import write

import spnet
from spnet.files import write_json
from spnet.training.finish import made_with

PART = 64
"""Photos of a part, and of a batch: small, so that nodes end at about the same time."""
UNCOUNTED = 0.25
"""Share of the photos that is classified while engines start."""
WAYS = {"local, 1 core": (False, 1), "ray, 1 node": (True, 1), "ray, 2 nodes": (True, 2), "local, 2 cores": (False, 2)}
"""What is measured: whether over Ray, a node a core; cores."""


def gather(data: Path | None, photos: int, folder: Path) -> Path:
    """A Parquet file of so many photos."""
    if data is None:
        data = folder / "made"
        data.mkdir()
        write(data, photos)
    table = pa.concat_tables(pq.read_table(file, columns=["image"]) for file in sorted(data.glob("*.parquet")))
    if len(table) < photos:
        raise SystemExit(f"{data} holds {len(table)} photos: ask for at most so many.")
    file = folder / "photos.parquet"
    pq.write_table(table.slice(0, photos), file, row_group_size=PART)
    return file


def classify(network: str, file: str, out: str, over_ray: bool, cores: list[int], answer: Any) -> None:
    """In a process of its own: puts photos a second, and seconds from the call to its end, into `answer`."""
    torch.set_num_threads(len(cores))
    times: list[tuple[float, int]] = []

    def predict(**how: Any) -> None:
        began = time.perf_counter()
        spnet.predict_files(
            network,
            out,
            parquet=file,
            batch_size=PART,
            part_size=PART,
            report=lambda done, photos: times.append((time.perf_counter(), done)),
            **how,
        )
        late = [(at, done) for at, done in times if done >= UNCOUNTED * times[-1][1]]
        (begun, before), (ended, done) = late[0], late[-1]
        answer.put(((done - before) / (ended - begun), time.perf_counter() - began))

    if over_ray:
        with nodes([{core} for core in cores]) as cluster:
            predict(on=f"ray:{cluster.address}")
    else:
        predict()


def in_a_process(network: str, file: Path, out: Path, over_ray: bool, cores: list[int]) -> tuple[float, float]:
    """What `classify` answers."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=classify, args=(network, str(file), str(out), over_ray, cores, answer))
    with on_cores(cores):
        process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"a measurement ended with exit code {process.exitcode}")
    return answer.get()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--photos", type=int, default=4000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--network", default="cifar10-small")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/batch.json"))
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("two nodes on one core say nothing: this process may use one core alone.")
    load, made = os.getloadavg()[0], made_with("fp32")
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = gather(args.data, args.photos, folder)
        for number in range(args.rounds):
            for way, (over_ray, count) in WAYS.items():
                out = folder / f"{way} {number}.parquet"
                rate, whole = in_a_process(args.network, file, out, over_ray, cores[:count])
                rates[way].append(round(rate, 1))
                seconds[way].append(round(whole, 1))
                print(f"{way}: {rate:.0f} photos/s, {whole:.1f} s in all", file=sys.stderr, flush=True)
        of_one_core = [(folder / f"{way} 0.parquet").read_bytes() for way in WAYS if way != "local, 2 cores"]
    row = {
        "network": args.network,
        "photos": args.photos,
        "source": args.data.name if args.data else "random JPEGs of 256 px",
        "photos_per_second": rates,
        "seconds_with_start": seconds,
        "two_nodes_over_one": _ratio(rates, "ray, 2 nodes", "ray, 1 node"),
        "one_node_over_local": _ratio(rates, "ray, 1 node", "local, 1 core"),
        "two_nodes_over_local": _ratio(rates, "ray, 2 nodes", "local, 2 cores"),
        "one_core_files_identical": len({*of_one_core}) == 1,
        "conditions": {
            **asdict(made),
            "threads": "one a core",
            "ray": importlib.metadata.version("ray"),
            "part_and_batch": PART,
            "load_before": round(load, 2),
        },
    }
    print(json.dumps(row, indent=1))
    write_json(args.out, row)
    return 0


def _ratio(rates: dict[str, list[float]], over: str, under: str) -> float:
    """The median of the rounds' own ratios."""
    return round(median(a / b for a, b in zip(rates[over], rates[under], strict=True)), 3)


if __name__ == "__main__":
    sys.exit(main())
