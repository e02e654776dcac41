"""`spnet eval`: the figures of a trained network on its test images."""

import argparse
from dataclasses import asdict, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spnet.cli import Parser
from spnet.cli.loading import add_loading
from spnet.cli.named import HELP, Named, open_named, to_calibrate_on
from spnet.cli.rules import add_rules, rules_of
from spnet.cli.threads import add_threads
from spnet.cli.words import paths, useless
from spnet.terminal import printable

if TYPE_CHECKING:
    from spnet.data import Dataset, Source
    from spnet.inference.engine import Engine
    from spnet.runs.record import Evaluation

ALWAYS_THERE = ("evolution_kl", "accuracy_fixed_path", "cost_ratio_fixed_path")
"""Figures that `--json` names even where there are none."""


def configure(parser: Parser, argv: list[str]) -> None:
    parser.add_argument("run", metavar="RUN", help=HELP)
    parser.add_argument(
        "--executor", metavar="E", help="masked, branching, gathered, onnx or auto (default masked; auto for a time)"
    )
    budgets = parser.add_mutually_exclusive_group()
    budgets.add_argument(
        "--budget", type=float, metavar="B", help="calibrate on training images to this share of the static cost"
    )
    budgets.add_argument(
        "--budget-ms",
        type=_milliseconds,
        metavar="MS|P%",
        help="or to this mean time of an image here, in milliseconds; P%%: so far from the fastest to the slowest",
    )
    add_rules(parser)
    parser.add_argument(
        "--data",
        metavar="NAME[:PATH]",
        help="where the images lie; default: the run's own. Classes are matched by name, the run's ?size=N is kept",
    )
    add_threads(parser)
    add_loading(parser)
    parser.add_argument("--sweep", action="store_true", help="the whole trade-off: many budgets and early exits")
    parser.add_argument("--out", metavar="DIR", help="write the sweep's table and picture there")


def _milliseconds(text: str) -> float | str:
    try:
        return text if text.endswith("%") else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"invalid float value: '{text}'") from error


def run(args: argparse.Namespace) -> dict[str, Any]:
    from spnet.errors import UserError
    from spnet.inference.engine import Engine
    from spnet.network.dynamic import DynamicNetwork
    from spnet.runs.forms import to_json

    named = open_named(args.run)
    if args.sweep:
        return _sweep(args, named)
    if args.out is not None:
        raise UserError("--out is where a sweep goes: add --sweep, or leave it out.")
    timed = args.budget_ms is not None
    executor = args.executor or ("auto" if timed else "masked")
    rules = rules_of(args)
    engine = Engine(named.net, executor, budget=args.budget, threads=args.threads, **rules)
    dataset = _data(args, named)
    reached = _calibrate(engine, args, named, dataset) if args.budget is not None or timed else {}
    batch = 1 if executor == "branching" or timed else 256  # `auto` may run something else in batches
    plain = executor == "masked" and not any(rule is not None for rule in rules.values())
    figures = _evaluate(engine, named, dataset.test, batch, plain)
    decides = isinstance(named.net, DynamicNetwork) and any(named.net.gated)
    notes = useless(figures, "A lower --budget skips more.") if decides else []
    there = dict.fromkeys(ALWAYS_THERE)
    return {**there, **to_json(figures), "notes": notes, **reached, **_identity(args, named, executor)}


def _calibrate(engine: "Engine", args: argparse.Namespace, named: Named, dataset: "Dataset") -> dict[str, Any]:
    """Calibrate the engine to the budget; what was reached."""
    from spnet.training.finish import CALIBRATION_IMAGES

    part, held_out = to_calibrate_on(dataset.train, named, CALIBRATION_IMAGES)
    reached: dict[str, Any] = {"calibration_images": len(part), "held_out": held_out}
    reached["calibration_cost"] = engine.calibrate(part.images, budget_ms=args.budget_ms)
    if engine.latency is not None:
        reached["budget_ms"] = engine.latency.budget_ms
        reached["milliseconds_per_image"] = engine.latency.milliseconds_per_image
        reached["latency"] = asdict(engine.latency)
    return reached


def _evaluate(engine: "Engine", named: Named, test: "Source", batch: int, plain: bool) -> "Evaluation":
    """`plain`: the network's own masked forward does, and gives features beside."""
    from spnet.inference.cascade.engine import CascadeEngine
    from spnet.inference.cascade.evaluate import evaluate_cascade
    from spnet.inference.evaluate import evaluate

    if isinstance(engine, CascadeEngine):
        figures = evaluate_cascade(engine, test, batch_size=batch)
        members = zip(named.names, figures.members, strict=True)
        return replace(figures, members=tuple(replace(member, run=name) for name, member in members))
    net = engine.model
    engine.settle()  # the controls, and a masked evaluation, ask the network
    return evaluate(net, test, forward=None if plain else engine, batch_size=batch)


def _data(args: argparse.Namespace, named: Named) -> "Dataset":
    return named.data(args.data, workers=args.workers, cache_gb=args.cache_gb)


def _identity(args: argparse.Namespace, named: Named, executor: str) -> dict[str, Any]:
    """What was evaluated and by what."""
    from spnet.training.finish import made_with

    made = made_with("fp32")
    title = {"executor": executor, "run": str(args.run), "label": named.label}
    return {**title, "made_with": asdict(made), "threads": made.threads, **named.trained()}


def _sweep(args: argparse.Namespace, named: Named) -> dict[str, Any]:
    from spnet.errors import UserError
    from spnet.files import write_json
    from spnet.inference.engine import Engine
    from spnet.inference.sweep import refuse_static, sweep
    from spnet.report.sweep import FILE, write
    from spnet.training.finish import CALIBRATION_IMAGES

    own = ("budget", "budget_ms", "max_cost", "exit_confidence")
    given = [f"--{name.replace('_', '-')}" for name in own if getattr(args, name) is not None]
    if given:
        raise UserError(f"--sweep sets budgets and exits itself: leave out {' and '.join(given)}.")
    refuse_static(named.net)  # before its data are looked for
    executor = args.executor or "masked"
    Engine(named.net, executor, threads=args.threads)  # refuses what cannot run
    dataset = _data(args, named)
    part, held_out = to_calibrate_on(dataset.train, named, CALIBRATION_IMAGES)
    augmentation = dataset.augmentation if named.config.training.augment else None
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        **_identity(args, named, executor),
        "n": len(dataset.test),
        "macs_static": named.net.static_macs,
        "calibration_images": len(part),
        "held_out": held_out,
        "sweep": rows,
    }

    def keep() -> None:
        """What is measured so far, from the first moment: a folder nobody may write to is noticed at once."""
        if args.out is not None:
            write_json(Path(args.out) / FILE, result)

    def progress(row: dict[str, Any]) -> None:
        rows.append(row)
        keep()

    keep()
    sweep(named.net, part, dataset.test, augmentation=augmentation, executor=executor, progress=progress)
    if args.out is not None:
        write(result, Path(args.out))
        result["out"] = args.out
    return result


def describe(result: dict[str, Any]) -> str:
    if "sweep" in result:
        from spnet.report.sweep import text

        return text(result)
    from spnet.runs.forms import fill
    from spnet.runs.record import Evaluation

    if "members" in result:
        return _describe_cascade(result)
    found = fill(Evaluation, result)
    kl = found.evolution_kl
    stages = ", ".join("-" if isnan(accuracy) else f"{accuracy:.2f}" for accuracy in found.stage_accuracy)
    lines = [
        f"{result['label']}  {printable(result['run'])}  (executor {result['executor']}, {result['threads']} threads)",
        f"accuracy            {found.accuracy:.2f} %  (n = {found.n}; by stage {stages}; mean over classes "
        f"{found.class_accuracy:.2f} %)",
        f"cost                {found.macs_mean / 1e6:.3f} MMACs = {found.gflops_mean:.5f} GFLOPs = "
        f"{100 * found.cost_ratio:.1f} % of static",
        f"execution rate      {found.execution_rate:.3f}, {paths(found.distinct_paths)}",
        f"shuffled paths      {found.accuracy_shuffled_paths:.2f} %   "
        f"one fixed path {found.accuracy_fixed_path:.2f} % at {100 * found.cost_ratio_fixed_path:.1f} %",
        f"evolution KL        {'not seen by this executor' if isnan(kl) else format(kl, '.5f')}",
        f"images per second   {found.images_per_second:.0f}",
    ]
    return "\n".join(lines + _trained(result) + ([_time(result)] if "latency" in result else []) + result["notes"])


def _trained(result: dict[str, Any]) -> list[str]:
    if "student_passes" not in result:
        return []
    epochs = " + ".join(map(str, result["epochs"]))
    return [f"trained             {epochs} epochs, {result['student_passes']:,} images passed through the student"]


def _describe_cascade(result: dict[str, Any]) -> str:
    from spnet.runs.forms import fill
    from spnet.runs.record import Evaluation

    found = fill(Evaluation, result)
    lines = [
        f"cascade of {result['label']}  {printable(result['run'])}  (executor {result['executor']}, "
        f"{result['threads']} threads)",
        f"accuracy            {found.accuracy:.2f} %  (n = {found.n}; mean over classes {found.class_accuracy:.2f} %)",
        f"cost                {found.macs_mean / 1e6:.3f} MMACs = {found.gflops_mean:.5f} GFLOPs = "
        f"{100 * found.cost_ratio:.1f} % of the last member's static network",
    ]
    for member in found.members:
        sure = "" if isnan(member.confidence) else f" (surer than {member.confidence:.4g})"
        lines.append(
            f"{printable(member.run):<19} answers {100 * member.share:.1f} % of the images{sure}, "
            f"{member.accuracy:.2f} % of them rightly; alone {member.accuracy_alone:.2f} % at "
            f"{100 * member.cost_alone:.1f} %"
        )
    lines.append(f"shuffled members    {found.accuracy_shuffled_paths:.2f} %")
    if not isnan(found.calibration_cost):
        seen = "that no member was trained on" if result["held_out"] else "that members were trained on"
        off = 100 * (found.cost_ratio / found.calibration_cost - 1)
        lines.append(
            f"calibrated          {100 * found.calibration_cost:.1f} % on {result['calibration_images']} training "
            f"images {seen}; on the test images the cost is {off:+.1f} % off that"
        )
    lines.append(f"images per second   {found.images_per_second:.0f}")
    return "\n".join(lines + _trained(result) + ([_time(result)] if "latency" in result else []))


def _time(result: dict[str, Any]) -> str:
    late = result["latency"]
    static = "; the static network meets this, nothing is skipped" if late["runs"] == "static" else ""
    return (
        f"time per image      {late['milliseconds_per_image']:.3g} ms of {result['budget_ms']:g} ms  (batch 1, "
        f"{late['runs']}, n = {late['n']} training images, p50 {late['p50']:.3g}, p90 {late['p90']:.3g}, "
        f"p99 {late['p99']:.3g}; {late['clean']} of {late['passes']} passes undisturbed{static})"
    )
