"""`spnet train`: train a run into a folder, or continue one."""

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spnet.cli import Parser
from spnet.cli.advice import size_advice
from spnet.cli.counting import listener
from spnet.cli.epochs import line
from spnet.cli.loading import add_loading
from spnet.cli.threads import add_threads, computing_with
from spnet.cli.words import paths, useless
from spnet.errors import UserError
from spnet.progress import listening, work
from spnet.terminal import say

if TYPE_CHECKING:
    from spnet.runs.record import EpochRow

BASE = (
    ("--recipe", "NAME", "start from a recipe (spnet list recipes)"),
    ("--method", "NAME", "method (spnet list methods)"),
    ("--with", "NAME", "put a wrapper around the method: spnet; several from inside out: spnet+sandwich"),
    ("--backbone", "NAME", "spnet list backbones; torchvision:NAME, timm:NAME, package.module:function"),
    ("--data", "NAME[:PATH]", "data set (spnet list data)"),
)


def configure(parser: Parser, argv: list[str]) -> None:
    for flag, metavar, text in BASE:
        parser.add_argument(flag, dest=flag[2:].replace("with", "wrapper"), metavar=metavar, help=text)
    parser.add_argument("--out", metavar="DIR", help="run folder; default runs/<label>-<hash>")
    parser.add_argument(
        "--init",
        metavar="RUN",
        help="start from another run's weights (same backbone); alone, with its settings too; or from a file: a state "
        "dict of the plain network (safetensors, or by torch.save)",
    )
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="continue the run in DIR; to train a finished one longer, start anew from it: --init DIR --epochs N",
    )
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="stop in time with a resumable folder")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="processes to start, one a device")
    add_threads(parser, " of each process")
    add_loading(parser)
    named, _ = parser.parse_known_args([a for a in argv if a not in ("-h", "--help")])
    add_settings(parser, named)


def add_settings(parser: Parser, named: argparse.Namespace) -> None:
    """Every setting of the chosen method is a flag."""
    import dataclasses

    for config in base_config(named).setting_classes():
        group = parser.add_argument_group(config.__name__.removesuffix("Config").lower() + " settings")
        for field in dataclasses.fields(config):
            text = f"{field.metadata['help']} (default {field.default})".replace("%", "%%")
            flag = "--" + field.name.replace("_", "-")
            group.add_argument(
                flag, dest=f"setting:{field.name}", metavar="VALUE", default=argparse.SUPPRESS, help=text
            )


def base_config(named: argparse.Namespace) -> Any:
    """The run before flags: the recipe or the run to resume, with the names given."""
    from spnet.backbones import import_backbone
    from spnet.methods import method_class
    from spnet.recipes import recipe
    from spnet.runs.config import RunConfig

    if named.resume:
        from spnet.runs.folder import read_config

        return read_config(Path(named.resume))[0]
    if named.init and not named.recipe and not _chooses(named) and not Path(named.init).is_file():
        from spnet.runs.run import Run

        return Run(named.init).config
    start = recipe(named.recipe) if named.recipe else (recipe("digits") if not _chooses(named) else None)
    if start is None:
        start = RunConfig(settings=dict(recipe("digits").settings) if _on_digits(named) else {})
    settings = dict(start.settings)
    method, wrapper = named.method or start.method, named.wrapper if named.wrapper is not None else start.wrapper
    if named.method and named.method != start.method:
        from spnet.build import method_configs
        from spnet.runs.config import TrainingConfig
        from spnet.settings import names

        kept = {n for c in (TrainingConfig, *method_configs(method, wrapper)) for n in names(c)}
        settings = {name: value for name, value in settings.items() if name in kept}
    chosen = method_class(method)
    if not chosen.routed:
        for name in ("budget", "more_budgets", *chosen.ignored):  # a recipe's mean nothing where nothing is decided
            settings.pop(name, None)
    if named.backbone:
        import_backbone(named.backbone)
    return RunConfig(method, wrapper, named.backbone or start.backbone, named.data or start.data, settings)


def _chooses(named: argparse.Namespace) -> bool:
    return any((named.method, named.wrapper, named.backbone, named.data))


def _on_digits(named: argparse.Namespace) -> bool:
    return (named.data or "digits") == "digits"


def run(args: argparse.Namespace) -> dict[str, Any]:
    from spnet.training.devices import cores, refuse_devices

    settings = {
        name.removeprefix("setting:"): value for name, value in vars(args).items() if name.startswith("setting:")
    }
    if args.resume:
        _refuse_beside_resume(args, settings)
    if args.time_limit is not None and not args.time_limit > 0:
        raise UserError(f"--time-limit wants a positive number of seconds, not {args.time_limit}.")
    refuse_devices(args.devices)
    config = base_config(args).with_settings(**settings)
    if args.resume and (Path(args.resume) / "result.json").is_file():
        from spnet.runs.forms import to_json
        from spnet.runs.record import read_result

        return {"run": args.resume, "finished": True, **to_json(read_result(Path(args.resume) / "result.json"))}
    threads = args.threads
    if threads is None and args.devices > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, cores() // args.devices)  # all processes share these cores
    with computing_with(threads):
        return _train(args, config, asked="batch_size" in settings)


def _refuse_beside_resume(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    others = (args.recipe, args.method, args.wrapper, args.backbone, args.init, args.out)
    if not settings and not any(others):
        return
    longer = ""
    if "epochs" in settings:
        again = shlex.join(["spnet", "train", "--init", args.resume, "--epochs", str(settings["epochs"])])
        longer = f" Its schedule ends with its epochs; a new run goes on from its weights: {again}"
    raise UserError(
        "--resume takes every setting from the folder: give it alone, or with --time-limit, --threads, --devices or "
        f"--data.{longer}"
    )


def _train(args: argparse.Namespace, config: Any, asked: bool) -> dict[str, Any]:
    """`asked`: whether the batch size is the user's own."""
    import torch

    from spnet import data
    from spnet.runs.open import run_folder
    from spnet.training.fit import fit
    from spnet.training.parts import with_fitting_batch

    init = run_folder(args.init) if args.init else None
    place = _data_of(args, config, init)
    dataset = data.load(place, workers=args.workers, cache_gb=args.cache_gb)
    if advice := size_advice(config.backbone, place, dataset):
        say(advice)
    for words in [] if args.resume else config.without_effect():
        say(words)
    shown, epochs = listener(), config.training.epochs

    def note(words: str) -> None:
        shown.say(f"spnet: {words}")

    with listening(shown), work("epochs", epochs) as reached:
        if not asked and not args.resume:
            config = with_fitting_batch(config, dataset, note)
        out = Path(args.resume or args.out or f"runs/{config.label.replace(' ', '')}-{config.hash}")
        about = f"{config.label} on {config.data}, {config.backbone}, {torch.get_num_threads()} threads -> {out}"
        print(about, file=sys.stderr)
        started = time.monotonic()
        outcome = fit(
            config,
            dataset,
            out,
            init=init,
            resume=bool(args.resume),
            time_limit=args.time_limit,
            devices=args.devices,
            data_at=place,
            report=lambda row: shown.say(line(row, epochs)),
            moved=reached,
            note=note,
        )
    if outcome.result is None:
        gained = len(outcome.rows) - outcome.begun_at
        if not gained and args.time_limit is not None:
            print(f"spnet: {_stalled(args, outcome.rows)}", file=sys.stderr)
        return {"run": str(out), "finished": False, "epochs_done": len(outcome.rows), "epochs_gained": gained}
    from spnet.report import write_report
    from spnet.runs.forms import to_json

    write_report([out], out / "report.html")
    return {"run": str(out), "finished": True, "seconds": time.monotonic() - started, **to_json(outcome.result)}


def _data_of(args: argparse.Namespace, config: Any, init: Path | None) -> str:
    """Where the images lie: as the command says, else where they lay for the run that is continued or started from."""
    from spnet.data.spec import sized_as
    from spnet.runs.run import Run

    if args.data:
        if args.resume and args.data.partition(":")[0] != config.data_name:
            raise UserError(f"--data {args.data}: this run was trained on {config.data_name}; say where that lies now.")
        return sized_as(args.data, config.data) if args.resume else args.data
    origin = Path(args.resume) if args.resume else init
    if origin is None or origin.is_file():
        return config.data
    before = Run(origin)
    return before.home if before.config.data == config.data else config.data


def _stalled(args: argparse.Namespace, rows: "list[EpochRow]") -> str:
    took = f" (the last one took {rows[-1].seconds:.0f} s)" if rows else ""
    within = f"no epoch ended within --time-limit {args.time_limit:g}: the run is where it was"
    return f"{within}. Give it more time than an epoch takes{took}."


def describe(result: dict[str, Any]) -> str:
    from spnet.methods import method_class
    from spnet.runs.forms import fill
    from spnet.runs.record import RunResult

    run_name = result["run"]
    if not result["finished"]:
        again = shlex.join(["spnet", "train", "--resume", run_name])
        return f"stopped in time after {result['epochs_done']} epochs; continue with: {again}"
    found = fill(RunResult, result)
    final, last = found.final, found.last
    lines = [
        f"test accuracy {final.accuracy:.2f} % (n = {final.n}), cost {final.macs_mean / 1e6:.3f} MMACs = "
        f"{final.gflops_mean:.5f} GFLOPs = {100 * final.cost_ratio:.1f} % of static",
    ]
    if method_class(found.config.method).routed:
        lines.append(
            f"{paths(final.distinct_paths)}; shuffled paths {final.accuracy_shuffled_paths:.2f} %, "
            f"one fixed path {final.accuracy_fixed_path:.2f} %"
        )
        lines += useless(final, "A lower --target or --budget skips more.")
    if found.calibrated and not found.calibrated.met:
        lines.append(f"not calibrated: {found.calibrated.missed}")
    elif found.calibrated:
        lines.append(f"before calibration: {last.accuracy:.2f} % at {100 * last.cost_ratio:.1f} % of static")
    lines.append(f"run folder {run_name} (open report.html in a browser)")
    return "\n".join(lines)
