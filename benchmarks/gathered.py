"""What the eager `gathered` executor wins over `masked`: same module, same decisions, interleaved.

    python benchmarks/gathered.py --backbone resnet110 --batch 64 --rate 0.5 --threads 2 --json

Random weights and images, forced iid decisions (each block of each image runs with probability `rate`), routers
running, eager, channels_last, fp32. Not the static rival: that comparison is `spnet bench`.
"""

import argparse
import json
import statistics
import time

import torch

from spnet import create_model
from spnet.bench.machine import conv_gflops
from spnet.inference.runtimes import EAGER
from spnet.training.finish import made_with


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", default="resnet110")
    parser.add_argument("--method", default="spnet")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    net = create_model(args.backbone, args.method, seed=0).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(args.batch, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    decisions = (torch.rand(args.batch, len(net.blocks), generator=generator) < args.rate).long()
    times: dict[str, list[float]] = {"masked": [], "gathered": []}
    logits = {}
    with torch.no_grad():
        for index in range(args.rounds + 1):
            for name in times:
                start = time.perf_counter()
                trace = net.forward_path(images, decisions, executor=EAGER[name], heads=False)
                if index:  # the first round warms up
                    times[name].append(1e3 * (time.perf_counter() - start))
                logits[name] = trace.logits
    medians = {name: statistics.median(values) for name, values in times.items()}
    error = (logits["gathered"] - logits["masked"]).abs().max() / logits["masked"].abs().max()
    result = {
        "speed_up": round(medians["masked"] / medians["gathered"], 3),
        "mac_ideal": round(net.static_macs / trace.macs.double().mean().item(), 3),
        "milliseconds": {name: round(value, 1) for name, value in medians.items()},
        "spread": {name: [round(min(v), 1), round(max(v), 1)] for name, v in times.items()},
        "relative_error": float(error),
        **{name: value for name, value in vars(args).items() if name != "json"},
        "conv_gflops": round(conv_gflops(args.threads), 1),
        "made_with": made_with("fp32"),
    }
    if args.json:
        print(json.dumps(result))
        return
    print(
        f"{args.backbone}, batch {args.batch}, rate {args.rate}, {args.threads} threads, "
        f"{result['conv_gflops']} GFLOP/s in a 3x3 convolution"
    )
    print("".join(f"{name:<10} {value:8.0f} ms\n" for name, value in medians.items()), end="")
    print(f"{result['speed_up']:.2f}x (multiply-adds {result['mac_ideal']:.2f}x), error {result['relative_error']:.1e}")


if __name__ == "__main__":
    main()
