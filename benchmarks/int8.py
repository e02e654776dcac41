"""Dynamic networks in 8 bits beside static ones in 8 bits and in fp32, all in onnxruntime.

    python benchmarks/int8.py [--rounds 60] [--out benchmarks/results/int8.json]

One process, one thread, batch 1, fresh weights, about one router a stage, calibrated on noise: time only. Static
networks by a bare session, the dynamic one through `Engine`, half of its blocks forced (from image to image the other
ones) or all; each called on one image before the next. Medians over rounds; ratios are medians of the ratio within a
round, in processor time.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from foreign import LOOKAHEAD, all_open, half_open

import spnet
from spnet.files import write_json
from spnet.inference.runtimes.onnx.executor import StaticExecutor
from spnet.inference.runtimes.onnx.library import open_session
from spnet.training.finish import made_with

NETWORKS = {"resnet32": 32, "torchvision:resnet18": 224, "torchvision:resnet50": 224}
"""Network -> pixels a side."""


def calls(name: str) -> dict[str, Callable[[int], Any]]:
    """What is timed, by name: a function of the number of the image."""
    size = NETWORKS[name]
    settings: dict[str, Any] = {
        "image_size": size,
        "num_classes": 1000,
        "lookahead": LOOKAHEAD.get(name, 1),
        "hidden": 16,
    }
    net = spnet.create_model(name, "dynamic", seed=0, **settings).eval()
    halves, full = half_open(net), all_open(net)
    images = torch.randn(len(halves), 3, size, size, generator=torch.Generator().manual_seed(0))
    fp32 = spnet.Engine(net, "onnx", threads=1)
    int8 = spnet.Engine(net, "onnx", threads=1, precision="int8", calibration=images)
    static = StaticExecutor(net, 1)
    session = open_session(int8.rules.int8.static(), 1)
    given = session.get_inputs()[0].name
    arrays = images.numpy()
    return {
        "static fp32": lambda k: static.run(arrays[k : k + 1]),
        "static int8": lambda k: session.run(None, {given: arrays[k : k + 1]}),
        "half fp32": lambda k: fp32(images[k : k + 1], halves[k : k + 1]),
        "half int8": lambda k: int8(images[k : k + 1], halves[k : k + 1]),
        "all int8": lambda k: int8(images[k : k + 1], full[k : k + 1]),
    }


Seconds = dict[str, np.ndarray]


def in_rounds(named: dict[str, Callable[[int], Any]], rounds: int) -> tuple[Seconds, Seconds]:
    """Wall and processor time of each in each round, all of them on one of 16 images before the next."""
    wall, cpu = ({name: np.zeros(rounds) for name in named} for _ in range(2))
    for k in range(-3, rounds):
        for name, call in named.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            call(k % 16)
            if k >= 0:
                cpu[name][k], wall[name][k] = time.process_time() - start_cpu, time.perf_counter() - start
    return wall, cpu


def timed(named: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, Any]:
    """Milliseconds of each, and ratios over the static ones."""
    wall, cpu = in_rounds(named, rounds)
    ratios = {
        f"{one} over {other}": float(np.median(cpu[other] / cpu[one]))
        for one, other in (
            ("static int8", "static fp32"),
            ("half fp32", "static fp32"),
            ("half int8", "static int8"),
            ("all int8", "static int8"),
            ("half int8", "static fp32"),
        )
    }
    return {"ms": {name: 1e3 * float(np.median(values)) for name, values in wall.items()}, **ratios, "rounds": rounds}


def main() -> int:
    parser = argparse.ArgumentParser(description="Dynamic networks in 8 bits.")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", default="benchmarks/results/int8.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for name in args.networks:
        rows[name] = row = timed(calls(name), args.rounds)
        print(name, {key: round(value, 2) for key, value in row.items() if " over " in key}, flush=True)
    write_json(Path(args.out), {"made_with": made_with("int8"), "threads": 1, "batch": 1, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
