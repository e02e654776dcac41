"""A network as static stage files, in onnxruntime and in OpenVINO, beside the whole static network in each.

    python benchmarks/stages.py [--data cifar10:PATH] [--networks NAME ...] [--rounds 60]
        [--out benchmarks/results/stages.json]

One process, one thread, batch 1, fp32. `cifar10-fast` decides for itself, on test images; torchvision's networks have
fresh weights and half of their blocks forced (see `foreign.py`). All are called on one image before the next; medians
over rounds, and medians of the ratio within a round, in processor time. Needs OpenVINO.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-not-found]
import torch
from foreign import IMAGES, LOOKAHEAD, half_open
from int8 import in_rounds

import spnet
from spnet import data
from spnet.files import write_json
from spnet.inference.export.run_stages import Stages
from spnet.inference.runtimes.onnx.executor import StaticExecutor
from spnet.inference.runtimes.onnx.network import path_model
from spnet.training.finish import made_with

NETWORKS = ("cifar10-fast", "torchvision:resnet18", "torchvision:resnet50")
TOLERANCE = 1e-4
OWN = {"engine": "onnxruntime", "stages, onnxruntime": "onnxruntime", "stages, OpenVINO": "OpenVINO"}
"""What is timed beside the static network of which runtime."""


def static_openvino(net: spnet.DynamicNetwork, images: np.ndarray) -> Callable[[int], Any]:
    """The whole static network, told what a stage is told."""
    core = openvino.Core()
    model = core.read_model(path_model(net).SerializeToString())
    model.reshape([1, *net.input_shape])
    how = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(
        model, "CPU", how | {"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    ).create_infer_request()

    def call(k: int) -> None:
        request.set_input_tensor(openvino.Tensor(images[k : k + 1], shared_memory=True))
        request.infer()

    return call


def calls(name: str, folder: Path, where: str) -> dict[str, Callable[[int], Any]]:
    """What is timed, by name: a function of the number of the image. RuntimeError where the runtimes disagree."""
    fresh = name in LOOKAHEAD
    settings: dict[str, Any] = {"image_size": 224, "num_classes": 1000, "hidden": 16, "seed": 0}
    net = (
        spnet.create_model(name, "dynamic", lookahead=LOOKAHEAD[name], **settings).eval() if fresh else spnet.load(name)
    )
    spnet.export(net, folder, stages=True)
    if fresh:
        images, forced = (
            np.random.default_rng(0).standard_normal((IMAGES, *net.input_shape), np.float32),
            half_open(net),
        )
    else:
        images, forced = net.prepare(data.load(where).test.images[:IMAGES]).numpy(), None
    paths = [None] * IMAGES if forced is None else forced.tolist()
    rows = [None if forced is None else forced[k : k + 1] for k in range(IMAGES)]
    engine, static = spnet.Engine(net, "onnx", threads=1), StaticExecutor(net, 1)
    on, ov = Stages(folder, "onnxruntime"), Stages(folder, "openvino")
    for k in range(IMAGES):
        (a, way, _), (b, other, _) = on(images[k : k + 1], paths[k]), ov(images[k : k + 1], paths[k])
        if way != other or np.abs(a - b).max() > TOLERANCE * np.abs(a).max():
            raise RuntimeError(f"{name}: onnxruntime and OpenVINO disagree on image {k}")
    return {
        "static, onnxruntime": lambda k: static.run(images[k : k + 1]),
        "static, OpenVINO": static_openvino(net, images),
        "engine": lambda k: engine(images[k : k + 1], rows[k]),
        "stages, onnxruntime": lambda k: on(images[k : k + 1], paths[k]),
        "stages, OpenVINO": lambda k: ov(images[k : k + 1], paths[k]),
    }


def measured(timed: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, Any]:
    _, taken = in_rounds(timed, rounds)
    ratios = {name: float(np.median(taken[f"static, {runtime}"] / taken[name])) for name, runtime in OWN.items()}
    return {"ms": {name: float(1e3 * np.median(some)) for name, some in taken.items()}, "over_static": ratios}


def main() -> int:
    parser = argparse.ArgumentParser(description="Stage files beside whole static networks.")
    parser.add_argument("--data", default="cifar10", metavar="NAME[:PATH]", help="where CIFAR-10 lies")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", default="benchmarks/results/stages.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for name in args.networks:
        with tempfile.TemporaryDirectory() as place:
            rows[name] = measured(calls(name, Path(place) / "stages", args.data), args.rounds)
        ms, over = rows[name]["ms"], rows[name]["over_static"]
        print(name, ", ".join(f"{key} {value:.2f} ms" for key, value in ms.items()), flush=True)
        print("   over the same runtime's static network:", ", ".join(f"{key} {x:.2f}x" for key, x in over.items()))
    facts = {"openvino": openvino.__version__, "rounds": args.rounds, "rows": rows}
    write_json(Path(args.out), {"made_with": made_with("fp32"), **facts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
