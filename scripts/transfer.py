"""A first real use: EfficientNet-Lite from ImageNet to the photos of Caltech-101, smaller networks against SP-Net.

    python scripts/lite_weights.py --out weights
    python scripts/transfer.py --data PATH --weights weights [--out runs/transfer] [--epochs 3] [ROW ...]

Every row starts from ImageNet weights and passes each training photo equally often; the last epoch is the result, the
test photos select nothing. SP-Net: one router for two blocks (about one a stage), classifiers after two earlier stages,
calibrated to three budgets on training photos. Beside them the same network on two sizes, as a cascade. A finished run
is never trained again, an unfinished one goes on. The last step measures all that are finished through `Engine`, one
thread, batch 1, in turn: do it on a quiet machine (`--measure`).
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spnet
from spnet import data
from spnet.bench.latency import in_turn
from spnet.errors import choose
from spnet.files import write_json
from spnet.inference.calibrate import spread
from spnet.inference.evaluate import collect, summarise
from spnet.runs.forms import to_json
from spnet.runs.record import read_metrics
from spnet.training.finish import made_with

BUDGETS = (0.85, 0.75, 0.65)
CALIBRATION_PHOTOS = 128
PAIR, PAIR_BUDGETS = ("lite0-128", "lite0"), (0.85, 0.75, 0.68)
"""One network at two sizes, as a cascade."""
COMMON = ("--batch-size", "32", "--lr", "0.02", "--schedule", "onecycle", "--lr-warmup", "0.2", "--nesterov", "true")
COMMON += ("--weight-decay", "1e-4", "--validation", "0", "--precision", "fp32")
ROUTED = ("--static-share", "0.4", "--lookahead", "2", "--hidden", "16", "--exits", "blocks.3,blocks.4")
ROUTED += ("--target", "0.5", "--budget", str(BUDGETS[0]), "--more-budgets", ",".join(map(str, BUDGETS[1:])))

ROWS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "lite0": (0, 160, ("--method", "static")),
    "lite0-spnet": (0, 160, ("--method", "spnet", *ROUTED)),
    "lite0-128": (0, 128, ("--method", "static")),
    "lite1": (1, 160, ("--method", "static")),
    "lite2": (2, 160, ("--method", "static")),
}
"""Row -> which Lite, pixels a side, what the training is told beside."""


def photos(args: argparse.Namespace, size: int) -> str:
    return f"photos:{args.data}?size={size}"


def train(args: argparse.Namespace, name: str) -> None:
    """Train a row, or go on with it."""
    lite, size, told = ROWS[name]
    out = args.out / name
    command = [sys.executable, "-m", "spnet", "train"]
    if (out / "result.json").is_file():
        return
    if (out / "config.json").is_file():
        command += ["--resume", str(out)]
    else:
        command += ["--backbone", f"timm:tf_efficientnet_lite{lite}", "--data", photos(args, size), "--out", str(out)]
        command += ["--init", str(args.weights / f"lite{lite}.safetensors"), "--epochs", str(args.epochs)]
        command += ["--seed", str(args.seed), *COMMON, *told]
    subprocess.run([*command, "--workers", str(args.workers), "--cache-gb", str(args.cache_gb)], check=True)


def finished(args: argparse.Namespace) -> list[str]:
    """Rows whose epochs are all trained; the figures that follow them in a run are taken anew here."""
    return [name for name in ROWS if len(read_metrics(args.out / name)) >= args.epochs]


def engines(args: argparse.Namespace, name: str) -> dict[str, spnet.Engine]:
    """What a user would call, on one thread: the network, or the dynamic one at each budget."""
    if name != "lite0-spnet":
        return {name: spnet.Engine(spnet.load(args.out / name), threads=1)}
    images = spread(data.load(photos(args, ROWS[name][1])).train, CALIBRATION_PHOTOS).images
    made = {}
    for budget in BUDGETS:
        made[f"{name} at {budget}"] = engine = spnet.Engine(spnet.load(args.out / name), threads=1)
        engine.calibrate(images, budget)
    return made


def cascades(args: argparse.Namespace) -> dict[str, spnet.Engine]:
    """The network on smaller photos, then on whole ones where it is not sure enough, at shares of the latter's cost."""
    images = spread(data.load(photos(args, ROWS[PAIR[1]][1])).train, CALIBRATION_PHOTOS).images
    made = {}
    for budget in PAIR_BUDGETS:
        engine = spnet.Engine(spnet.Cascade([spnet.load(args.out / name) for name in PAIR]), threads=1)
        engine.calibrate(images, budget)
        made[f"{PAIR[0]}, then {PAIR[1]} at {budget}"] = engine
    return made


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Accuracy on all test photos, multiply-adds, milliseconds at batch 1 side by side."""
    named = {key: (engine, name) for name in finished(args) for key, engine in engines(args, name).items()}
    if {*PAIR} <= {*finished(args)}:
        named |= {key: (engine, PAIR[1]) for key, engine in cascades(args).items()}
    sizes = {ROWS[name][1] for name in finished(args)}
    sets = {size: data.load(photos(args, size), cache_gb=args.cache_gb).test for size in sizes}
    rows: dict[str, Any] = {}
    for key, (engine, name) in named.items():
        net = engine.model
        figures = summarise(collect(engine, sets[ROWS[name][1]], 64), net.static_macs, net.options)
        rows[key] = {**to_json(figures), "pixels": ROWS[name][1], "runs": engine.choice(1)}
    views = {size: test.select(range(0, len(test), len(test) // args.images)).images for size, test in sets.items()}
    calls = [
        [partial(engine, views[ROWS[name][1]][k : k + 1]) for k in range(args.images)]
        for engine, name in named.values()
    ]
    for key, taken in zip(named, in_turn(calls), strict=True):
        rows[key] |= {"ms_mean": float(np.mean(taken)), "ms_median": float(np.median(taken)), "ms_images": len(taken)}
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="EfficientNet-Lite on Caltech-101: the ladder and SP-Net.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="where scripts/lite_weights.py wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/transfer.json"))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all when left out")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-gb", type=float, default=1.5)
    parser.add_argument("--workers", type=int, default=1, help="processes that read photos")
    parser.add_argument("--images", type=int, default=300, help="test photos that are timed")
    parser.add_argument("--measure", action="store_true", help="train nothing, measure what is trained")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    if not args.measure:
        for name in args.rows or ROWS:
            train(args, choose("row", name, ROWS))
        return 0
    rows = measure(args)
    trained = {
        name: {"epochs": len(rows), "seconds": sum(row.seconds for row in rows)}
        for name, rows in ((name, read_metrics(args.out / name)) for name in finished(args))
    }
    write_json(args.results, {"made_with": made_with("fp32"), "seed": args.seed, "trained": trained, "rows": rows})
    print(json.dumps({key: {k: row[k] for k in ("accuracy", "cost_ratio", "ms_mean")} for key, row in rows.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
