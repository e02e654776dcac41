"""`spnet reproduce`: train what a table or figure needs and has not been trained yet, then write it."""

import argparse
from pathlib import Path
from typing import Any

from spnet.cli import Parser
from spnet.cli.live import live
from spnet.cli.on import add_runs_on, launching
from spnet.cli.threads import add_threads, computing_with

IMAGES = {"digits": 1347, "cifar10": 50_000, "cifar100": 50_000}


def configure(parser: Parser, argv: list[str]) -> None:
    from spnet.reproduction import TARGETS
    from spnet.reproduction.plan import FITTING, READINGS
    from spnet.reproduction.scales import SCALES

    parser.add_argument("target", metavar="TARGET", help=f"{', '.join(TARGETS)}, or all of the paper's")
    parser.add_argument("--scale", default="digits", metavar="S", help=f"{', '.join(SCALES)} (default digits)")
    parser.add_argument("--out", default="reproduced", metavar="DIR", help="where files go (default reproduced)")
    parser.add_argument(
        "--results", default="results", metavar="DIR", help="records of finished runs (default results)"
    )
    parser.add_argument("--work", default="runs/reproduce", metavar="DIR", help="run folders under way")
    parser.add_argument("--data", action="append", default=[], metavar="NAME:PATH", help="where a data set lies")
    add_threads(parser, " of each run")
    add_runs_on(parser)
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds; default: all of the scale's")
    parser.add_argument(
        "--reading", default=FITTING, metavar="R", help=f"table1: what the weights are: {', '.join(READINGS)}"
    )
    parser.add_argument("--finished-only", action="store_true", help="train nothing: write what finished runs give")
    parser.add_argument(
        "--time", action="store_true", help="contenders: also take the milliseconds of what is trained, in turn"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="list the runs, done and to do, the hours left, and stop"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from spnet import reproduction
    from spnet.jobs.runner import NETWORKS, finished, run_all, unique

    plan = _plan(args)
    targets = reproduction.PAPER if args.target == "all" else (args.target,)
    results = Path(args.results)
    runs = unique([r for target in targets for r in reproduction.runs(target, plan)])
    runs.sort(key=lambda run: run.training.seed)  # stopped early, every row has a seed before one has two
    networks = {r.hash for target in targets for r in reproduction.networks(target, plan)}
    if args.dry_run:
        return _listed(args, runs, networks, results)
    failed: dict[str, str] = {}
    if not args.finished_only:
        places = {"results": results, "work": Path(args.work), "networks": networks}
        with launching(args, plan.places.values()) as how, live() as show, computing_with(args.threads):
            board = run_all(runs, **places, **how, show=show)
        failed = board.failed
    if args.time:
        reproduction.time(args.target, plan, results)
    files, left_out = [], []
    for target in targets:
        # A table leaves out what is not finished; a figure is drawn from weights or not at all.
        if all(finished(run, results, network=True) for run in reproduction.needs_networks(target, plan)):
            files += reproduction.write(target, plan, results, results / NETWORKS, Path(args.out))
        else:
            left_out.append(target)
    return {
        "target": args.target,
        "scale": args.scale,
        "runs": len(runs),
        "files": [str(file) for file in files],
        "failed": [*failed.values()],
        "left_out": left_out,
    }


def _plan(args: argparse.Namespace) -> Any:
    from spnet.data.spec import parse
    from spnet.errors import UserError, choose
    from spnet.reproduction import TARGETS, TIMED
    from spnet.reproduction.plan import FITTING, READINGS, Plan
    from spnet.reproduction.scales import SCALES

    choose("target", args.target, (*TARGETS, "all"))
    if args.time:
        choose("target of --time", args.target, TIMED)
    scale = SCALES[choose("scale", args.scale, SCALES)]
    choose("reading", args.reading, READINGS)
    if args.seeds is not None and not 1 <= args.seeds <= len(scale.seeds):
        raise UserError(f"--seeds lies between 1 and {len(scale.seeds)} at scale {scale.name}, not {args.seeds}.")
    places = {parse(spec).name: spec for spec in args.data}
    unused = [name for name in places if name not in scale.datasets]
    if unused:
        raise UserError(f"--data {unused[0]}: scale {scale.name} uses {' and '.join(scale.datasets)}.")
    command = f"spnet reproduce {args.target} --scale {scale.name}"
    command += f" --seeds {args.seeds}" if args.seeds else ""
    command += f" --reading {args.reading}" if args.reading != FITTING else ""
    return Plan(scale, scale.seeds[: args.seeds], places, args.reading, command)


def _listed(args: argparse.Namespace, runs: list[Any], networks: set[str], results: Path) -> dict[str, Any]:
    from spnet.jobs.runner import finished
    from spnet.reproduction.estimate import seconds

    todo = [r for r in runs if not finished(r, results, network=r.hash in networks)]
    listed = [
        {
            "hash": r.hash,
            "label": r.label,
            "backbone": r.backbone,
            "data": r.data_name,
            "seed": r.training.seed,
            "done": r not in todo,
        }
        for r in runs
    ]
    hours = seconds(todo, IMAGES) / 3600
    return {"target": args.target, "scale": args.scale, "runs": listed, "to_do": len(todo), "hours_left": hours}


def describe(result: dict[str, Any]) -> str:
    if "files" in result:
        tables = [Path(file).read_text() for file in result["files"] if file.endswith(".md")]
        said = [f"left out: {target}, whose networks are not trained" for target in result["left_out"]]
        said += [f"failed: {reason}" for reason in result["failed"]]
        return "\n".join([*tables, *(f"wrote {file}" for file in result["files"]), *said])
    lines = [
        f"{'done ' if r['done'] else 'to do'}  {r['hash']}  {r['label']:<24} {r['backbone']:<9} {r['data']:<8} "
        f"seed {r['seed']}"
        for r in result["runs"]
    ]
    hours = f"about {result['hours_left']:.1f} hours left on this machine, one run after another"
    return "\n".join([*lines, f"{result['to_do']} of {len(result['runs'])} runs to do, {hours}"])
