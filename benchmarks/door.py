"""What the public door costs: `Engine.__call__` beside the session it runs and beside a static onnxruntime session.

    python benchmarks/door.py [--digits RUN] [--data cifar10:PATH] [--rounds 200] [--out benchmarks/results/door.json]

One process, one thread, batch 1. Engine and static session are called in turn, so that a disturbance hits both and
each finds the cache full of the other's weights; then engine and session likewise. Figures are medians over rounds;
ratios are medians of the ratio within a round, in wall time and in processor time (`mean_cpu_ratio`: all rounds
together, to set beside the mean of the multiply-adds). Decisions: half of the blocks of a
fresh ResNet-110 forced (routers run and are overruled), with a router per block and with one for six blocks, and its
own; the network's own for `cifar10-fast` and for the digits network of the README.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spnet
from spnet import data
from spnet.files import write_json
from spnet.inference.runtimes.onnx.executor import OnnxExecutor, StaticExecutor
from spnet.inference.runtimes.onnx.forcing import Forcing
from spnet.training.finish import made_with

PATHS = 32
"""Images, or forced paths, that a measurement goes through."""


Calls = list[Callable[[], Any]]


def measured(one: Calls, other: Calls, rounds: int) -> dict[str, Any]:
    """One of each in turn; a round is a call of both. Milliseconds, and how much longer the other took."""
    for call in (*one[:5], *other[:5]):
        call()
    wall, cpu = np.zeros((rounds, 2)), np.zeros((rounds, 2))
    for k in range(rounds):
        for side, calls in enumerate((one, other)):
            call = calls[k % len(calls)]
            start, start_cpu = time.perf_counter(), time.process_time()
            call()
            cpu[k, side], wall[k, side] = time.process_time() - start_cpu, time.perf_counter() - start
    return {
        "ms": (1e3 * np.median(wall, 0)).tolist(),
        "cpu_ms": (1e3 * np.median(cpu, 0)).tolist(),
        "ratio": float(np.median(wall[:, 1] / wall[:, 0])),
        "cpu_ratio": float(np.median(cpu[:, 1] / cpu[:, 0])),
        "mean_cpu_ratio": float(cpu[:, 1].sum() / cpu[:, 0].sum()),
        "difference_ms": float(1e3 * np.median(wall[:, 0] - wall[:, 1])),
        "rounds": rounds,
    }


def case(
    net: spnet.DynamicNetwork,
    images: torch.Tensor,
    forced: torch.Tensor | None,
    rounds: int,
    batch: int = 1,
    threads: int = 1,
) -> dict[str, Any]:
    """Images (M, C, H, W), uint8 or normalised; forced decisions (M, N) or None for the network's own."""
    arrays = net.prepare(images).float().numpy()
    forcing = Forcing(net)
    engine = spnet.Engine(net, "onnx", threads=threads)
    session, static = OnnxExecutor(net, threads), StaticExecutor(net, threads)

    def through_engine(part: slice) -> Callable[[], Any]:
        some, force = images[part], None if forced is None else forced[part]
        return lambda: engine(some, force)

    def in_session(part: slice) -> Callable[[], Any]:
        some, bias = arrays[part], None if forced is None else forcing(forced[part].numpy(), batch)
        return lambda: session.arrays(some, bias)

    def in_full(part: slice) -> Callable[[], Any]:
        some = arrays[part]
        return lambda: static.run(some)

    parts = [slice(start, start + batch) for start in range(0, len(images), batch)]
    calls = [[kind(part) for part in parts] for kind in (through_engine, in_full, in_session)]
    return {"static": measured(calls[0], calls[1], rounds), "session": measured(calls[0], calls[2], rounds)}


def main() -> int:
    parser = argparse.ArgumentParser(description="What the public door costs.")
    parser.add_argument("--digits", metavar="RUN", help="a trained digits run; left out: no such row")
    parser.add_argument("--data", default="cifar10", metavar="NAME[:PATH]", help="where CIFAR-10 lies")
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--out", default="benchmarks/results/door.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    rows: dict[str, Any] = {}
    noise = torch.randn(PATHS, 3, 32, 32, generator=generator)
    several: dict[str, Any] = {"lookahead": 6, "hidden": 16}
    for words, settings in (("a router per block", {}), ("one for six", several)):
        deep = spnet.create_model("resnet110", "dynamic", seed=0, **settings).eval()
        halves = torch.stack([torch.randperm(len(deep.blocks), generator=generator) % 2 for _ in range(PATHS)])
        rows[f"resnet110, half forced, {words}"] = case(deep, noise, halves, args.rounds)
        rows[f"resnet110, own decisions, {words}"] = case(deep, noise, None, args.rounds)
        more = noise.repeat(4, 1, 1, 1)
        rows[f"resnet110, own decisions, {words}, batch 64"] = case(deep, more, None, args.rounds // 20, batch=64)
    pixels = data.load(args.data).test.images[:PATHS]
    rows["cifar10-fast, own decisions"] = case(spnet.load("cifar10-fast"), pixels, None, args.rounds)
    if args.digits:
        digits = data.load("digits").test.images[:PATHS]
        rows["digits, own decisions"] = case(spnet.load(args.digits), digits, None, args.rounds)
    for name, row in rows.items():
        (engine, static), session = row["static"]["ms"], row["session"]
        print(
            f"{name:<58} static {static:.3f} ms, engine {engine:.3f}: {row['static']['ratio']:.2f}x "
            f"({row['static']['cpu_ratio']:.2f}x in CPU time); engine over session {session['difference_ms']:.3f} ms "
            f"({100 / session['cpu_ratio'] - 100:.1f} %)"
        )
    write_json(Path(args.out), {"made_with": made_with("fp32"), "threads": 1, "batch": 1, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
