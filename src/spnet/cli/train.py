"""`spnet train`: train a run into a folder, or continue one."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spnet.cli import Parser
from spnet.errors import UserError

BASE = (
    ("--recipe", "NAME", "start from a recipe (spnet list recipes)"),
    ("--method", "NAME", "method (spnet list methods)"),
    ("--with", "NAME", "wrap the method: spnet"),
    ("--backbone", "NAME", "backbone (spnet list backbones)"),
    ("--data", "NAME[:PATH]", "data set (spnet list data)"),
)


def configure(parser: Parser, argv: list[str]) -> None:
    for flag, metavar, text in BASE:
        parser.add_argument(flag, dest=flag[2:].replace("with", "wrapper"), metavar=metavar, help=text)
    parser.add_argument("--out", metavar="DIR", help="run folder; default runs/<label>-<hash>")
    parser.add_argument("--init", metavar="RUN", help="start from another run's weights (same backbone)")
    parser.add_argument("--resume", metavar="DIR", help="continue the run in DIR")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="stop in time with a resumable folder")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="processes, one per device")
    named, _ = parser.parse_known_args([a for a in argv if a not in ("-h", "--help")])
    _add_settings(parser, named)


def _add_settings(parser: Parser, named: argparse.Namespace) -> None:
    """Every setting of the chosen method is a flag."""
    import dataclasses

    for config in _base(named).setting_classes():
        group = parser.add_argument_group(config.__name__.removesuffix("Config").lower() + " settings")
        for field in dataclasses.fields(config):
            text = f"{field.metadata['help']} (default {field.default})".replace("%", "%%")
            flag = "--" + field.name.replace("_", "-")
            group.add_argument(
                flag, dest=f"setting:{field.name}", metavar="VALUE", default=argparse.SUPPRESS, help=text
            )


def _base(named: argparse.Namespace) -> Any:
    """The run before flags: the recipe or the run to resume, with the names given."""
    from spnet.methods import Method, method_class
    from spnet.recipes import recipe
    from spnet.training.config import RunConfig

    if named.resume:
        from spnet.training.checkpoint import read_config

        return read_config(Path(named.resume))[0]
    start = recipe(named.recipe) if named.recipe else (recipe("digits") if not _chooses(named) else None)
    if start is None:
        start = RunConfig(settings=dict(recipe("digits").settings) if _on_digits(named) else {})
    settings = dict(start.settings)
    method, wrapper = named.method or start.method, named.wrapper if named.wrapper is not None else start.wrapper
    if named.method and named.method != start.method:
        from spnet.build import method_configs
        from spnet.settings import names
        from spnet.training.config import TrainingConfig

        kept = {n for c in (TrainingConfig, *method_configs(method, wrapper)) for n in names(c)}
        settings = {name: value for name, value in settings.items() if name in kept}
    if method_class(method).build_router is Method.build_router:
        for name in ("budget", "more_budgets"):  # a recipe's budgets mean nothing where nothing is decided
            settings.pop(name, None)
    return RunConfig(method, wrapper, named.backbone or start.backbone, named.data or start.data, settings)


def _chooses(named: argparse.Namespace) -> bool:
    return any((named.method, named.wrapper, named.backbone, named.data))


def _on_digits(named: argparse.Namespace) -> bool:
    return (named.data or "digits") == "digits"


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from spnet import data
    from spnet.files import read_json
    from spnet.training.fit import fit

    settings = {
        name.removeprefix("setting:"): value for name, value in vars(args).items() if name.startswith("setting:")
    }
    base = _base(args)
    if args.resume and (settings or args.recipe or _chooses(args) or args.init or args.out):
        raise UserError("--resume takes every setting from the folder: give it alone, or with --time-limit.")
    if args.time_limit is not None and not args.time_limit > 0:
        raise UserError(f"--time-limit wants a positive number of seconds, not {args.time_limit}.")
    if args.devices < 1:
        raise UserError(f"--devices must be at least 1, not {args.devices}.")
    config = base.with_settings(**settings)
    out = Path(args.resume or args.out or f"runs/{config.label.replace(' ', '')}-{config.hash}")
    if args.resume and (out / "result.json").is_file():
        return {"run": str(out), "finished": True, **read_json(out / "result.json")}
    init = None
    if args.init:
        from spnet.runs import run_folder

        init = run_folder(args.init)
    dataset = data.load(config.data)
    print(
        f"{config.label} on {config.data}, {config.backbone}, {torch.get_num_threads()} threads -> {out}",
        file=sys.stderr,
    )
    report, close = _progress(config.training.epochs)
    started = time.monotonic()
    try:
        outcome = fit(
            config,
            dataset,
            out,
            init=init,
            resume=bool(args.resume),
            time_limit=args.time_limit,
            devices=args.devices,
            report=report,
        )
    finally:
        close()
    if outcome.rank:
        sys.exit(0)  # the first process speaks for all
    if not outcome.finished:
        gained = len(outcome.rows) - outcome.begun_at
        if not gained:
            print(f"spnet: {_stalled(args, outcome.rows)}", file=sys.stderr)
        return {"run": str(out), "finished": False, "epochs_done": len(outcome.rows), "epochs_gained": gained}
    from spnet.report import write_report

    write_report([out], out / "report.html")
    return {"run": str(out), "finished": True, "seconds": time.monotonic() - started, **(outcome.result or {})}


def _progress(epochs: int) -> tuple[Callable[[dict[str, Any]], None], Callable[[], None]]:
    """A live bar on a terminal, plain lines elsewhere; both on stderr."""
    if not sys.stderr.isatty():
        return (lambda row: print(_line(row, epochs), file=sys.stderr, flush=True)), lambda: None
    from rich.console import Console
    from rich.progress import Progress, TimeRemainingColumn

    bar = Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=Console(stderr=True))
    task = bar.add_task("training", total=epochs)
    bar.start()

    def report(row: dict[str, Any]) -> None:
        bar.console.print(_line(row, epochs), highlight=False)
        bar.update(task, completed=row["epoch"])

    return report, bar.stop


def _line(row: dict[str, Any], epochs: int) -> str:
    name = "validation_accuracy" if "validation_accuracy" in row else "probe_accuracy"
    text = f"epoch {row['epoch']:>3}/{epochs} {row['phase']:<10} loss {row['loss']:.4f}"
    text += f"  {name.replace('_', ' ')} {row[name]:.2f}  cost {row['cost_ratio']:.3f}"
    text += f"  paths {row['distinct_paths']}  {row['seconds']:.1f} s"
    stuck = len(row.get("always_run", ())) + len(row.get("always_skipped", ()))
    if stuck and row["phase"] != "static":
        text += f"  [{len(row['always_run'])} blocks run for everyone, {len(row['always_skipped'])} for no one]"
    return text


def _stalled(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    took = f" (the last one took {rows[-1]['seconds']:.0f} s)" if rows else ""
    within = f"no epoch ended within --time-limit {args.time_limit:g}: the run is where it was"
    return f"{within}. Give it more time than an epoch takes{took}."


def describe(result: dict[str, Any]) -> str:
    run_name = result["run"]
    if not result["finished"]:
        return f"stopped in time after {result['epochs_done']} epochs; continue with: spnet train --resume {run_name}"
    final, last = result["final"], result["last"]
    lines = [
        f"test accuracy {final['accuracy']:.2f} % (n = {final['n']}), cost {final['macs_mean'] / 1e6:.3f} MMACs = "
        f"{final['gflops_mean']:.5f} GFLOPs = {100 * final['cost_ratio']:.1f} % of static",
    ]
    if result["config"]["method"] != "static":
        lines.append(
            f"{final['distinct_paths']} distinct paths; shuffled paths {final['accuracy_shuffled_paths']:.2f} %, "
            f"one fixed path {final['accuracy_fixed_path']:.2f} %"
        )
    if "missed" in result.get("calibrated", {}):
        lines.append(f"not calibrated: {result['calibrated']['missed']}")
    elif "calibrated" in result:
        lines.append(f"before calibration: {last['accuracy']:.2f} % at {100 * last['cost_ratio']:.1f} % of static")
    lines.append(f"run folder {run_name} (open report.html in a browser)")
    return "\n".join(lines)
