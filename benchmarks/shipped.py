"""What to use on CIFAR-10 at which budget, of all that ships: accuracy, multiply-adds, milliseconds through `Engine`.

    python benchmarks/shipped.py --data cifar10:PATH [--images 400] [--out benchmarks/results/shipped.json]

Contenders: the static networks, the dynamic ones as they ship and at smaller budgets, early exits, cascades of the
small network and each of the large ones; and int8 of all but exits. Everything is
calibrated on training images without labels; the test images are read once, to count. Milliseconds: batch 1, one
thread, every contender on the same test images in turn, each image once before it is timed; the mean over the images,
for a dynamic network takes another time for each. Draws
`shipped.png` and `shipped.svg` beside the record.
"""

import argparse
import copy
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spnet
from spnet import data
from spnet.bench.latency import in_turn
from spnet.files import write_json
from spnet.inference.calibrate import spread
from spnet.inference.cascade.engine import CascadeEngine
from spnet.inference.evaluate import collect, summarise
from spnet.report.figures import theme
from spnet.training.finish import CALIBRATION_IMAGES, made_with

STATIC, SMALL = "cifar10-static", "cifar10-small"
LARGE = (STATIC, "cifar10-fast", "cifar10")
BUDGETS = (0.7, 0.6, 0.5, 0.4)
ALONE = {"cifar10": (0.72, 0.66), "cifar10-fast": (0.6,)}
"""Budgets of a dynamic network on its own, beside the one it ships with."""
EXITS = (0.95, 0.9)
IN_8_BITS = ", int8"
LEAST = 88.5
"""Percent: below it the picture shows nothing, for the small network alone would squeeze the rest."""


def contenders(images: torch.Tensor) -> Iterator[tuple[str, str, spnet.Engine]]:
    """(family, how it was set, engine on one thread); images: uint8, for calibration."""
    for name in (SMALL, STATIC):
        yield "static", name, spnet.Engine(spnet.load(name), "onnx", threads=1)
    for name in (SMALL, STATIC, *ALONE):
        family = ("static" if name in (SMALL, STATIC) else name) + IN_8_BITS
        yield family, name, spnet.Engine(spnet.load(name), "onnx", threads=1, precision="int8", calibration=images)
    for name, budgets in ALONE.items():
        yield name, "as it ships", spnet.Engine(spnet.load(name), "onnx", threads=1)
        for budget in budgets:
            engine = spnet.Engine(spnet.load(name), "onnx", threads=1)
            engine.calibrate(images, budget)
            yield name, f"budget {budget}", engine
    for confidence in EXITS:
        engine = spnet.Engine(spnet.load("cifar10-fast"), "onnx", threads=1, exit_confidence=confidence)
        yield "cifar10-fast with exits", f"confidence {confidence}", engine
    for large, int8 in [(large, int8) for int8 in (False, True) for large in LARGE]:
        members = [spnet.load(SMALL), spnet.load(large)]
        how: dict[str, Any] = {"precision": "int8", "calibration": images} if int8 else {}
        engine = spnet.Engine(spnet.Cascade(members), "onnx", threads=1, **how)
        assert isinstance(engine, CascadeEngine)
        planner = engine.planner(images)
        for budget in BUDGETS:
            mine = copy.copy(engine)
            try:
                mine.meet(planner, budget)
            except spnet.UserError as error:
                print(f"{SMALL}+{large} at {budget}: {error}", file=sys.stderr)
                continue
            yield f"{SMALL}+{large}{IN_8_BITS if int8 else ''}", f"budget {budget}", mine


@theme.styled()
def draw(rows: list[dict[str, Any]], n: int, out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    families = list(dict.fromkeys(row["family"] for row in rows))
    kinds = list(dict.fromkeys(family.removesuffix(IN_8_BITS) for family in families))
    for axes, key, scale, title in (
        (left, "ms", 1, "ms an image, batch 1, one thread"),
        (right, "cost_ratio", 100, "multiply-adds, % of static ResNet-32"),
    ):
        for family in families:
            mine = sorted((row for row in rows if row["family"] == family), key=lambda row: row[key])
            int8, style = family.endswith(IN_8_BITS), kinds.index(family.removesuffix(IN_8_BITS))
            axes.plot(
                [scale * row[key] for row in mine], [row["accuracy"] for row in mine], color=theme.colour(style),
                linestyle=":" if int8 else "-", marker=theme.marker(style), markersize=5, linewidth=1.3,
                markerfacecolor=theme.INKS["paper"] if int8 else theme.colour(style),
                label=None if int8 else family,
            )  # fmt: skip
        axes.set_xlabel(title)
        axes.set_ylim(bottom=LEAST)
    left.set_ylabel(theme.ACCURACY)
    right.legend(loc="lower left")
    figure.suptitle(f"CIFAR-10, n = {n} test images, one training each; hollow: int8", x=0.01, ha="left")
    theme.save(out.with_suffix(""), figure)


def main() -> int:
    parser = argparse.ArgumentParser(description="What to use on CIFAR-10 at which budget.")
    parser.add_argument("--data", default="cifar10", metavar="NAME[:PATH]", help="where CIFAR-10 lies")
    parser.add_argument("--images", type=int, default=400, help="test images that are timed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/shipped.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = data.load(args.data)
    static = spnet.load(STATIC).static_macs
    named = list(contenders(spread(found.train, CALIBRATION_IMAGES).images))
    rows: list[dict[str, Any]] = []
    for family, setting, engine in named:
        figures = summarise(collect(engine, found.test), static, engine.model.options)
        rows.append(
            {
                "family": family,
                "setting": setting,
                "accuracy": figures.accuracy,
                "n": figures.n,
                "macs": figures.macs_mean,
                "gflops": figures.gflops_mean,
                "cost_ratio": figures.cost_ratio,
            }
        )
    views = spread(found.test, args.images).images
    calls = [[partial(engine, views[k : k + 1]) for k in range(len(views))] for _, _, engine in named]
    taken = np.array(in_turn(calls))
    reference = taken[[family == "static" and setting == STATIC for family, setting, _ in named]][0]
    for row, mine in zip(rows, taken, strict=True):
        row |= {"ms": mine.mean(), "ms_median": float(np.median(mine)), "ms_images": len(mine)}
        row["speed_up"] = reference.mean() / mine.mean()
        print(
            f"{row['family']:<30} {row['setting']:<16} {row['accuracy']:.2f} %  {row['macs'] / 1e6:.2f} MMACs = "
            f"{row['gflops']:.4f} GFLOPs = {100 * row['cost_ratio']:.1f} %  {row['ms']:.3f} ms  {row['speed_up']:.2f}x"
        )
    write_json(args.out, {"made_with": made_with("fp32"), "threads": 1, "batch": 1, "rows": rows})
    draw(rows, len(found.test), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
