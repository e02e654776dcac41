"""What a prediction costs beside `import torch`: whole processes, start included.

    python benchmarks/startup.py [RUN] --rounds 7

One picture from outside the set, alternating with a bare `import torch`; prints one JSON object: medians, their ratio,
the spread, and the conditions. RUN is a run folder or a shipped network.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from spnet.runs.open import run_folder
from spnet.training.finish import made_with

SIZE = (200, 150)


def seconds(command: list[str]) -> float:
    """Wall time of one process; raises CalledProcessError when it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every process, one of each a round; a round before the first fills the disk's cache."""
    for command in commands.values():
        seconds(command)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            times[name].append(seconds(command))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", nargs="?", default="cifar10", metavar="RUN", help="default: the shipped cifar10")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    run_folder(args.run)  # refuse an unknown name before anything is timed
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.jpg"
        Image.radial_gradient("L").resize(SIZE).convert("RGB").save(picture)
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "predict": [sys.executable, "-m", "spnet", "predict", args.run, str(picture)],
        }
        times = measure(commands, args.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "run": args.run,
        "picture": f"JPEG, {SIZE[0]}x{SIZE[1]}",
        "rounds": args.rounds,
        "ratio": round(medians["predict"] / medians["import torch"], 3),
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "spread": {name: [round(min(values), 3), round(max(values), 3)] for name, values in times.items()},
        "made_with": made_with("fp32"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
