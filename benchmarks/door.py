"""What the public door costs: `Engine.__call__` beside the session it runs and beside a static onnxruntime session.

    python benchmarks/door.py [--digits RUN] [--data cifar10:PATH] [--rounds 200] [--out benchmarks/results/door.json]

One process, one thread, batch 1; the three are called in turn, so that a disturbance hits all. Figures are medians
over rounds; ratios are medians of the ratio within a round, in wall time and in processor time. Decisions: half of the
blocks of a fresh ResNet-110 forced (routers run and are overruled), the network's own for `cifar10-fast` and for the
digits network of the README.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import spnet
from spnet import data
from spnet.files import write_json
from spnet.inference.runtimes.onnx.executor import OnnxExecutor, StaticExecutor
from spnet.inference.runtimes.onnx.forcing import Forcing
from spnet.training.finish import made_with

PATHS = 32
"""Images, or forced paths, that a measurement goes through."""


def measured(calls: dict[str, list[Callable[[], Any]]], rounds: int) -> dict[str, Any]:
    """Call one of each in turn; a round is one pass over all."""
    for several in calls.values():
        for call in several[:5]:
            call()
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for k in range(rounds):
        for name, several in calls.items():
            call = several[k % len(several)]
            start, start_cpu = time.perf_counter(), time.process_time()
            call()
            cpu[name].append(time.process_time() - start_cpu)
            wall[name].append(time.perf_counter() - start)

    def ratio(times: dict[str, list[float]]) -> float:
        return median(s / e for s, e in zip(times["static"], times["engine"], strict=True))

    return {
        "ms": {name: 1e3 * median(times) for name, times in wall.items()},
        "cpu_ms": {name: 1e3 * median(times) for name, times in cpu.items()},
        "speed_up": ratio(wall),
        "cpu_speed_up": ratio(cpu),
        "door_ms": 1e3 * median(e - s for e, s in zip(wall["engine"], wall["session"], strict=True)),
        "rounds": rounds,
    }


def case(net: spnet.DynamicNetwork, images: torch.Tensor, forced: torch.Tensor | None, rounds: int) -> dict[str, Any]:
    """Images (M, C, H, W), uint8 or normalised; forced decisions (M, N) or None for the network's own."""
    engine = spnet.Engine(net, "onnx", threads=1)
    session, static = OnnxExecutor(net, 1, router_logits=True), StaticExecutor(net, 1)
    arrays = net.prepare(images).float().numpy()
    forcing = Forcing(net)

    def calls_on(k: int) -> tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]:
        image, array = images[k : k + 1], arrays[k : k + 1]
        force = None if forced is None else forced[k]
        bias = None if forced is None else forcing(forced[k].numpy(), 1)
        return lambda: engine(image, force), lambda: session.arrays(array, bias), lambda: static.run(array)

    each = [calls_on(k) for k in range(len(images))]
    names = ("engine", "session", "static")
    return measured({name: [calls[i] for calls in each] for i, name in enumerate(names)}, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description="What the public door costs.")
    parser.add_argument("--digits", metavar="RUN", help="a trained digits run; left out: no such row")
    parser.add_argument("--data", default="cifar10", metavar="NAME[:PATH]", help="where CIFAR-10 lies")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", default="benchmarks/results/door.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    rows: dict[str, Any] = {}
    deep = spnet.create_model("resnet110", "dynamic", lookahead=6, hidden=16, seed=0).eval()
    halves = (torch.rand(PATHS, len(deep.blocks), generator=generator) < 0.5).long()
    rows["resnet110, half forced"] = case(deep, torch.randn(PATHS, 3, 32, 32, generator=generator), halves, args.rounds)
    pixels = data.load(args.data).test.images[:PATHS]
    rows["cifar10-fast, own decisions"] = case(spnet.load("cifar10-fast"), pixels, None, args.rounds)
    if args.digits:
        digits = data.load("digits").test.images[:PATHS]
        rows["digits, own decisions"] = case(spnet.load(args.digits), digits, None, args.rounds)
    for name, row in rows.items():
        ms = row["ms"]
        print(
            f"{name:<28} static {ms['static']:.3f} ms, engine {ms['engine']:.3f}, session {ms['session']:.3f}; "
            f"{row['speed_up']:.2f}x ({row['cpu_speed_up']:.2f}x in CPU time), door {row['door_ms']:.3f} ms"
        )
    write_json(Path(args.out), {"made_with": made_with("fp32"), "threads": 1, "batch": 1, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
