"""Measured speed-up of skipping on ResNet-110, fp32, beside its goals. Writes a record with hardware and versions.

    python benchmarks/skipping.py [--quick] [--out benchmarks/results]

Routers run (lookahead 6, 16 wide) and are overruled so that rates are exact; the base is the fastest static variant
of the same run and thread count. Run it on an idle machine: measurements during which others take the cores are
dropped and counted.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from spnet.cli import main as spnet

GOALS = {
    (1, 1): {0.3: 2.6, 0.5: 1.65, 0.7: 1.25, 0.9: 0.97},
    (2, 64): {0.3: 2.7, 0.5: 1.7, 0.7: 1.25, 0.9: 0.97},
    (2, 256): {0.3: 2.7, 0.5: 1.7, 0.7: 1.25, 0.9: 0.97},
}
"""(threads, batch) -> rate -> speed-up of `auto`."""


def verdicts(records: list[dict[str, Any]]) -> list[str]:
    """One line a goal: reached or missed, by what was measured."""
    lines = []
    for record in records:
        for row in record["dynamic"]:
            goal = GOALS.get((record["threads"], record["batch"]), {}).get(row["rate"])
            if goal is None or row["variant"] != "engine":
                continue
            auto = row["auto"]
            word = "reached" if auto["speed_up"] >= goal else "missed "
            lines.append(
                f"{word} {record['threads']} thread(s), batch {record['batch']:>3}, rate {100 * row['rate']:.0f} %: "
                f"{auto['speed_up']:.2f}x of {goal:.2f}x ({auto['runs']}, {row['compared']}/{row['rounds']} clean)"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Measured speed-up of skipping on ResNet-110.")
    parser.add_argument("--quick", action="store_true", help="three short rounds, to see that it runs")
    parser.add_argument("--out", default="benchmarks/results", metavar="DIR")
    args = parser.parse_args()
    length = ["--rounds", "3", "--seconds", "0.2"] if args.quick else ["--rounds", "9", "--seconds", "0.5"]
    code = 0
    lines: list[str] = []
    for threads, batches in ((1, "1"), (2, "64,256")):
        out = Path(args.out) / f"skipping-resnet110-threads{threads}"
        command = ["bench", "resnet110", "--threads", str(threads), "--batches", batches, "--plain", "--no-profile"]
        code = code or spnet([*command, *length, "--out", str(out)])
        if code == 0:
            lines += verdicts(json.loads((out / "bench.json").read_text())["records"])
    print("\n".join(lines), file=sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
