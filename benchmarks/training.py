"""Cost of a training step: each method against the plain fp32 channels_last step of the static network, in one run.

    python benchmarks/training.py --backbone resnet20 --threads 2 --json

Interleaved rounds, medians, ratios; random images; forward, backward and SGD. `ratios` are each method's step, in the
precision a training would choose here (or `--precision`), over the static fp32 step.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch

from spnet.bench.machine import conv_gflops
from spnet.build import build_network, create_method
from spnet.methods.base import Batch, Optimizer, Step
from spnet.training.devices import autocast, resolve_precision, reuse_freed_memory
from spnet.training.finish import made_with
from spnet.training.schedule import build_optimizer
from spnet.training.step import freeze

METHODS = (("static", ""), ("convnet-aig", ""), ("spnet", ""))


def stepper(method_name: str, wrapper: str, backbone: str, batch: int, size: int, precision: str) -> Callable[[], None]:
    """A function that does one training step of the method's last phase."""
    method = create_method(method_name, wrapper)
    net = build_network(method, backbone, num_classes=10, input_shape=(3, size, size), seed=0)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    method.attach(net)
    phase = method.phases(10)[-1]
    if phase.on_start is not None:
        phase.on_start(net)
    parameters = freeze(net, phase)
    config = Optimizer(clip_value=0.5)
    optimizer = build_optimizer(config, parameters)
    images = torch.randn(batch * phase.copies, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch * phase.copies,))
    step = Step(phase)

    def run() -> None:
        with autocast(precision, images.device):
            losses = phase.objective(net, Batch(images, labels, phase.copies), step)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_value_(parameters, 0.5)
        optimizer.step()

    return run


def measure(steppers: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every step, one step of each variant a round."""
    for run in steppers.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(rounds):
        for name, run in steppers.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", default="resnet20")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--methods", help="comma-separated, such as skipnet,rdi-net+spnet; default static, convnet-aig, spnet"
    )
    parser.add_argument("--precision", default="auto", help="of all but the base: auto, fp32 or bf16")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    reuse_freed_memory()
    torch.manual_seed(0)
    precision = resolve_precision(args.precision, torch.device("cpu"))
    chosen = [tuple(name.split("+")) for name in args.methods.split(",")] if args.methods else METHODS
    steppers = {"static fp32": stepper("static", "", args.backbone, args.batch, args.size, "fp32")}
    for method, *wrapper in chosen:
        inner = "".join(wrapper)
        name = f"{method}+{inner}" if inner else method
        steppers[name] = stepper(method, inner, args.backbone, args.batch, args.size, precision)
    times = measure(steppers, args.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "backbone": args.backbone,
        "batch": args.batch,
        "size": args.size,
        "rounds": args.rounds,
        "precision": precision,
        "ratios": {name: round(value / medians["static fp32"], 3) for name, value in medians.items()},
        "milliseconds": {name: round(value, 2) for name, value in medians.items()},
        "spread": {name: [round(min(v), 2), round(max(v), 2)] for name, v in times.items()},
        "images_per_second": {name: round(1e3 * args.batch / value, 1) for name, value in medians.items()},
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "conv_gflops": round(conv_gflops(args.threads), 1),
        "made_with": made_with(precision),
    }
    if args.json:
        print(json.dumps(result))
        return
    print(
        f"{args.backbone}, batch {args.batch}, {args.threads} threads, "
        f"{result['conv_gflops']} GFLOP/s in a 3x3 convolution"
    )
    for name, value in medians.items():
        print(
            f"{name:<20} {value:8.1f} ms  {result['ratios'][name]:.2f}x  "
            f"{result['images_per_second'][name]:7.0f} images/s"
        )
    print(f"peak memory {result['peak_memory_mib']} MiB, all variants together", file=sys.stderr)


if __name__ == "__main__":
    main()
