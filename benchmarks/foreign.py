"""Networks of torchvision and timm at 224 px, every block forced open and half of them, beside static onnxruntime.

    python benchmarks/foreign.py [--networks NAME ...] [--rounds 48] [--out benchmarks/results/foreign.json]

One process, one thread, batch 1 (ResNet-18 also 16 images, two workers), fresh weights, about one router a stage (they
run and are overruled); measured as in `door.py`, in turn. "Half" skips every second of the blocks that may be skipped,
from image to image the other ones; "by chance" lets each of them run with probability 0.5 (seed 0), where the ratio is
of the mean times. Beside the speed stands what that saves in multiply-adds.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from door import case

import spnet
from spnet.files import write_json
from spnet.training.finish import made_with

LOOKAHEAD = {"torchvision:resnet18": 2, "torchvision:resnet50": 4, "timm:tf_efficientnet_lite0": 2}
"""Network -> gated blocks that one router decides."""
SHAPE = (3, 224, 224)
IMAGES = 16


def all_open(net: spnet.DynamicNetwork) -> torch.Tensor:
    """Decisions (M, N) of M images: every block runs."""
    return (torch.tensor(net.options) - 1).repeat(IMAGES, 1)


def half_open(net: spnet.DynamicNetwork) -> torch.Tensor:
    """Decisions (M, N): of the blocks that may be skipped, every second one is; from image to image the other ones."""
    decisions = all_open(net)
    gated = list(net.gated_indices)
    for image in range(IMAGES):
        decisions[image, gated[image % 2 :: 2]] = 0
    return decisions


def by_chance(net: spnet.DynamicNetwork) -> torch.Tensor:
    """Decisions (M, N): each block that may be skipped runs with probability 0.5."""
    heads = torch.rand(IMAGES, len(net.options), generator=torch.Generator().manual_seed(0)) < 0.5
    skippable = torch.zeros(len(net.options), dtype=torch.bool)
    skippable[list(net.gated_indices)] = True
    return torch.where(heads & skippable, 0, all_open(net))


KINDS = {"all open": all_open, "half": half_open, "half by chance": by_chance}


def one(name: str, kind: str, rounds: int, batch: int = 1, threads: int = 1) -> dict[str, Any]:
    """A row: how fast, beside what is saved in multiply-adds."""
    images = torch.randn(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))
    net = spnet.create_model(
        name, "dynamic", image_size=SHAPE[1], num_classes=1000, seed=0, lookahead=LOOKAHEAD[name], hidden=16
    ).eval()
    forced = KINDS[kind](net)
    row = case(net, images, forced, rounds, batch, threads)
    last = torch.full((IMAGES,), len(net.backbone.stages) - 1)
    macs = net.macs_of(forced, last, routed=True, heads=False)
    row |= {"macs_speed_up": net.static_macs / float(macs.double().mean()), "batch": batch, "threads": threads}
    engine_ms, static_ms = row["static"]["ms"]
    print(
        f"{f'{name}, {kind}, batch {batch}, {threads} threads':<60} static {static_ms:.1f} ms, engine {engine_ms:.1f}; "
        f"{row['static']['ratio']:.2f}x ({row['static']['cpu_ratio']:.2f}x in CPU time, "
        f"{row['static']['mean_cpu_ratio']:.2f}x of the means), "
        f"multiply-adds {row['macs_speed_up']:.2f}x",
        flush=True,
    )
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description="Networks of torchvision and timm at 224 px.")
    parser.add_argument("--networks", nargs="+", choices=LOOKAHEAD, default=list(LOOKAHEAD))
    parser.add_argument("--rounds", type=int, default=48)
    parser.add_argument("--out", default="benchmarks/results/foreign.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = {f"{name}, {kind}": one(name, kind, args.rounds) for name in args.networks for kind in KINDS}
    if (name := "torchvision:resnet18") in args.networks:
        rows[f"{name}, half, batch 16"] = one(name, "half", args.rounds // 4, batch=16, threads=2)
    write_json(Path(args.out), {"made_with": made_with("fp32"), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
