"""One call on a bare GPU machine: check the fast training step, measure it, train what fits into the time, pack it.

    python scripts/gpu.py --prepare cifar10 cifar100 --out packed    at home: the data in files of at most 56 MiB
    python scripts/gpu.py --data packed --work work --out out        there; again with the same --work goes on

It needs torch, numpy and safetensors, and nothing of spnet's command line. --out gets at most 8 files under 16 MiB:
gpu.json (checks, times, what was trained) and archives to unpack at the root of the repository: results/<hash>.json,
which tables read, and the run folders runs/<hash>.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(ROOT / "src"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (sys.path[1], os.environ.get("PYTHONPATH"))))  # for the workers

import torch  # noqa: E402
from gpu_pack import pack  # noqa: E402
from gpu_print import changes, say, show_measured, show_runs  # noqa: E402

from spnet import UserError, data  # noqa: E402
from spnet.bench.steps import random_images  # noqa: E402
from spnet.bench.ways import Check, check, fastest, hours, measure, ways  # noqa: E402
from spnet.data import Dataset, Split, packed  # noqa: E402
from spnet.data.cifar import CLASSES  # noqa: E402
from spnet.data.locate import VARIABLE  # noqa: E402
from spnet.files import read_json, write_json  # noqa: E402
from spnet.jobs.runner import finished, run_all  # noqa: E402
from spnet.reproduction.plan import Plan  # noqa: E402
from spnet.reproduction.scales import SCALES, Scale  # noqa: E402
from spnet.runs.config import RunConfig  # noqa: E402
from spnet.runs.record import read_metrics  # noqa: E402
from spnet.training.devices import resolve_precision  # noqa: E402
from spnet.training.distributed import take_place  # noqa: E402
from spnet.training.finish import made_with  # noqa: E402

METHODS = ("static", "convnet-aig", "spnet")
PAPER_EPOCHS, IMAGES = 349, 50_000


@dataclass(frozen=True)
class Size:
    """How much of everything. `checked`: the backbone of the checks; `backend`: what torch.compile compiles with."""

    scale: Scale
    checked: str
    backend: str
    pixels: int
    rounds: int
    steps: int
    workers: int


FULL = Size(SCALES["gpu"], "resnet20", "inductor", pixels=32, rounds=3, steps=10, workers=3)
TOY = Size(
    Scale(
        "toy",
        ("cifar10",),
        "resnet8",
        ("resnet8",),
        {"epochs": 3, "batch_size": 32, "lr": 0.05, "clip_value": 0.5, "validation": 0.0},
        {"static_share": 0.33, "target": 0.6, "budget": 0.79, "more_budgets": (0.5,)},
        (0,),
        "Toy: noise.",
    ),
    "resnet8",
    "aot_eager",
    pixels=8,
    rounds=1,
    steps=2,
    workers=2,
)


def main() -> int:
    args = arguments()
    try:
        if args.prepare:
            for spec in args.prepare:
                for path in packed.write(data.load(spec), args.out):
                    print(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")
            return 0
        return run(args, TOY if args.toy else FULL)
    except UserError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--prepare", nargs="+", metavar="DATA", help="pack data sets, such as cifar10, into --out")
    parser.add_argument("--data", type=Path, default=Path("packed"), metavar="DIR", help="packed data (default packed)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="what comes back")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), metavar="DIR", help="goes on where it was left")
    parser.add_argument("--results", type=Path, metavar="DIR", help="records of finished runs (default results)")
    parser.add_argument("--time-limit", type=float, default=540, metavar="S", help="seconds in all (default 540)")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of every method (default 3)")
    parser.add_argument("--workers", type=int, metavar="N", help="trainings side by side (default 3)")
    parser.add_argument("--ways", nargs="+", default=list(ways()), choices=list(ways()), help="ways to compute a step")
    parser.add_argument("--toy", action="store_true", help="a tiny network on noise, seconds on a processor")
    return parser.parse_args()


def run(args: argparse.Namespace, size: Size) -> int:
    deadline = time.monotonic() + args.time_limit - min(20.0, 0.1 * args.time_limit)  # the rest is for packing
    device = take_place().device
    here = asdict(made_with(resolve_precision("auto", device)))
    say(f"{here['hardware']}, torch {here['torch']}, {device}, {here['precision']}")
    record = args.work / "gpu.json"
    said = proven(size, device, here, args.ways, record)
    if args.toy and not packed.parts(args.work / "data", "cifar10"):
        packed.write(toy_data(), args.work / "data")
    names = find_data(args.work / "data" if args.toy else args.data, size.scale)
    work, results = args.work / "runs", args.results or (args.work / "results" if args.toy else ROOT / "results")
    way = "eager" if args.toy else fastest(said["measured"], "spnet")  # a toy trains before it would be compiled
    seeds = size.scale.seeds[: args.seeds]

    def planned(scale: Scale, names: tuple[str, ...], seeds: tuple[int, ...]) -> list[RunConfig]:
        how, plan = ways(size.backend)[way], Plan(scale, seeds)
        return [plan.run(name, method, seed=seed, **how) for name in names for seed in seeds for method in METHODS]

    def train(runs: list[RunConfig]) -> dict[str, str]:
        left, done = deadline - time.monotonic(), sum(finished(run, results) for run in runs)
        say(f"\n{done} of {len(runs)} runs are done; {max(left, 0):.0f} s are left; steps {way}")
        if done == len(runs) or left <= 0:
            return {}
        workers = args.workers or size.workers
        return run_all(runs, results=results, work=work, workers=workers, show=changes(), time_limit=left).failed

    runs = planned(size.scale, names, seeds)
    failed, longer = train(runs), []
    paper = max(row["paper_hours"] for row in said["measured"] if row["way"] == way)
    fits = runs and all(finished(run, results) for run in runs) and 3600 * paper < deadline - time.monotonic()
    say(f"{PAPER_EPOCHS} epochs take {paper:.2f} h in steps alone: {'begun' if fits else 'not begun'}")
    if fits and not args.toy:
        longer = planned(SCALES["paper"], names[:1], seeds[:1])
        failed |= train(longer)
    said |= {"way": way, "failed": failed, "runs": [state(run, work, results) for run in runs + longer]}
    write_json(record, said)
    show_runs(runs, said["runs"], size.scale, results)
    for line in [*failed.values(), *pack(record, runs + longer, work, results, args.out)]:
        say(line)
    return int(bool(failed) or any(found["passed"] is False for found in said["checks"]))


def proven(
    size: Size, device: torch.device, here: dict[str, Any], tried: Sequence[str], record: Path
) -> dict[str, Any]:
    """Checks and times, from an earlier such call on such a machine or made now; printed and kept in `record`."""
    of = [size.scale.name, here["hardware"], here["torch"], *tried]
    said: dict[str, Any] = read_json(record) if record.is_file() else {}
    if said.get("of") != of:
        said = {"of": of, "made_with": here}
    base = size.scale.base
    if "checks" not in said:
        config = RunConfig("spnet", "", size.checked, "noise", {**base, "batch_size": 32, "lr": 0.01})
        checks = check(config, random_images(192, size.pixels), device, tried, size.backend)
        said["checks"] = [asdict(found) for found in checks]
        write_json(record, said)
    for found in said["checks"]:
        say(str(Check(**found)))
    if "measured" not in said:
        configs = [RunConfig(method, "", size.scale.backbone, "noise", dict(base)) for method in METHODS]
        passed = {found["name"] for found in said["checks"] if found["passed"]}
        passing = ["eager", *(way for way in ways() if way in passed)]
        noise = random_images(base["batch_size"], size.pixels)
        timing = {"backend": size.backend, "rounds": size.rounds, "steps": size.steps}
        said["measured"] = measure(configs, noise, device, passing, **timing)
        for row in said["measured"]:
            row["paper_hours"] = hours(row, PAPER_EPOCHS, IMAGES, base["batch_size"])
        write_json(record, said)
    show_measured(said["measured"], f"{size.scale.backbone}, batch {base['batch_size']}", PAPER_EPOCHS)
    return said


# Data


def find_data(folder: Path, scale: Scale) -> tuple[str, ...]:
    """The scale's data sets that `folder` holds, made known to `data.load` here and in the workers."""
    places = {name: folder if packed.parts(folder, name) else folder / name for name in scale.datasets}
    there = {name: place.resolve() for name, place in places.items() if place.is_dir() and any(place.iterdir())}
    for name in scale.datasets:
        if name not in there:
            say(f"{folder} holds no {name}: it is not trained on (see --prepare)")
    os.environ[VARIABLE] = os.pathsep.join(f"{name}:{place}" for name, place in there.items())
    return tuple(there)


def toy_data() -> Dataset:
    """Noise around one colour a class."""
    noise = random_images(160, 16)
    tint = torch.arange(160).view(-1, 1, 1, 1) % 10 * 12
    images = (noise.train.images // 2 + tint).to(torch.uint8)
    train, test = (Split(images[part], noise.train.labels[part]) for part in (slice(96), slice(96, None)))
    return Dataset("cifar10", train, test, CLASSES["cifar10"], noise.mean, noise.std, noise.augmentation)


def state(run: RunConfig, work: Path, results: Path) -> dict[str, Any]:
    where = {"data": run.data, "method": run.label, "seed": run.training.seed, "planned": run.training.epochs}
    done = {"finished": finished(run, results), "epochs": len(read_metrics(work / run.hash))}
    return {"hash": run.hash, **where, **done}


if __name__ == "__main__":
    sys.exit(main())
