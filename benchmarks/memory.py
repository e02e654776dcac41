"""Memory of a training: does it grow? Resident memory after 100 steps, at the end, and the peak; the median step.

    python benchmarks/memory.py --backbone resnet20 --method spnet --steps 1000 --batch 32 --json

Random images; the steps of `benchmarks/training.py`. Growth shows in any size: a step that keeps something keeps it
each time.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from training import stepper

from spnet.training.devices import resolve_precision, reuse_freed_memory
from spnet.training.finish import made_with


def resident_mib() -> float:
    """Memory this process holds now (Linux)."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", default="resnet20")
    parser.add_argument("--method", default="spnet")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    reuse_freed_memory()
    precision = resolve_precision(args.precision, torch.device("cpu"))
    run = stepper(args.method, "", args.backbone, args.batch, args.size, precision)
    held, seconds = {}, []
    for step in range(1, args.steps + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
        if step in (min(100, args.steps), args.steps):
            held[step] = round(resident_mib(), 1)
    result = {
        **{name: getattr(args, name) for name in ("backbone", "method", "steps", "batch", "size")},
        "resident_mib": held,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "step_ms": round(1e3 * statistics.median(seconds), 1),
        "made_with": made_with(precision),
    }
    print(json.dumps(result) if args.json else f"{args.method} on {args.backbone}, batch {args.batch}: {held} MiB")


if __name__ == "__main__":
    main()
