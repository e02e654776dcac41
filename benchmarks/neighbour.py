"""What a busy neighbour costs a training step: alone, and beside one spinning process a core.

    python benchmarks/neighbour.py [--steps 20] [--rounds 3] [--out benchmarks/results/neighbour.json]

ResNet-20, SP-Net, batch 64, as many threads as cores. Each measurement is a process of its own, for how threads wait is
settled when torch is imported: `default` as `spnet` settles it (`spnet.waiting`: by what else runs), `torch` as torch
would by itself.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from spnet.files import write_json
from spnet.training.finish import made_with

STEP = """
import sys, time
if sys.argv[1] == "default":
    from spnet.waiting import choose_waiting
    choose_waiting()
import torch
from spnet.bench.steps import Trial, random_images
from spnet.runs.config import RunConfig
config = RunConfig("spnet", "", "resnet20", "cifar10", {"batch_size": 64, "epochs": 1})
print(Trial(config, random_images(256, 32), torch.device("cpu")).take(int(sys.argv[2])))
"""


def step_ms(how: str, steps: int) -> float:
    """Milliseconds of a step, warm, in a process of its own."""
    settled = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in settled}
    done = subprocess.run(
        [sys.executable, "-c", STEP, how, str(steps)], env=clean, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description="What a busy neighbour costs a training step.")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="benchmarks/results/neighbour.json")
    args = parser.parse_args()
    ways = ("default", "torch")
    quiet: dict[str, list[float]] = {how: [] for how in ways}
    for _ in range(args.rounds):
        for how in ways:
            quiet[how].append(step_ms(how, args.steps))
    rows: dict[str, dict[str, Any]] = {how: {"quiet_ms": median(quiet[how])} for how in ways}
    busy: dict[str, list[float]] = {how: [] for how in ways}
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        for _ in range(args.rounds):
            busy["default"].append(step_ms("default", args.steps))
        busy["torch"].append(step_ms("torch", max(2, args.steps // 5)))  # seconds a step
    finally:
        for spinner in spinners:
            spinner.kill()
    for how in ways:
        rows[how] |= {"busy_ms": median(busy[how]), "all_quiet_ms": quiet[how], "all_busy_ms": busy[how]}
    for row in rows.values():
        row["busy_over_quiet"] = row["busy_ms"] / row["quiet_ms"]
    print(json.dumps(rows, indent=1))
    write_json(Path(args.out), {"made_with": made_with("fp32"), "batch": 64, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
