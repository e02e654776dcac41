"""`spnet predict`: class, probability, path and cost of pictures; of whole archives see `spnet.cli.archive`."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spnet.cli import Parser
from spnet.cli.archive import add_archive, describe_archive, is_archive, names_archive, run_archive
from spnet.cli.named import HELP, open_named
from spnet.cli.rules import add_rules, rules_of

if TYPE_CHECKING:
    import numpy as np

    from spnet.inference.cascade import Cascade
    from spnet.network.dynamic import DynamicNetwork
    from spnet.report.paths import Walked


def configure(parser: Parser, argv: list[str]) -> None:
    parser.add_argument("run", metavar="RUN", help=HELP)
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="*" if names_archive(argv) else "+",
        help="picture files, or folders: every picture in them and in their inner folders. Pictures that cannot be "
        "read are named on stderr and make the exit code 2; the others are classified",
    )
    parser.add_argument(
        "--executor",
        metavar="E",
        help="masked, branching, gathered, onnx or auto (default branching, made for single pictures; for archives "
        "auto)",
    )
    parser.add_argument(
        "--draw", metavar="FILE", help="draw the first pictures with the blocks they ran: a .png, .svg or .pdf file"
    )
    add_rules(parser)
    add_archive(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from spnet.data.pictures import read_picture
    from spnet.errors import UserError, check_finite
    from spnet.inference.engine import Engine
    from spnet.report import paths
    from spnet.terminal import say

    archive = is_archive(args)
    if args.draw:
        paths.check_file(Path(args.draw))
    named = open_named(args.run)
    if archive:
        return run_archive(args, named)
    engine = Engine(named.net, args.executor or "branching", expected_cost=named.cost, **rules_of(args))
    channels, height, width = engine.model.input_shape
    classes = engine.model.classes or [str(label) for label in range(engine.model.num_classes)]
    predictions, failures, walked = [], [], []
    for name in _pictures(args.images):
        try:
            picture, note = read_picture(name, channels, (height, width))
        except UserError as error:
            failures.append({"image": name, "reason": str(error)})
            continue
        trace = engine(picture[None])
        check_finite(trace.logits)
        probability, predicted = trace.logits.softmax(1).max(1)
        predictions.append(
            {
                "image": name,
                "class": classes[int(predicted)],
                "probability": float(probability),
                "path": trace.decisions[0].tolist(),
                "macs": int(trace.macs[0]),
                "cost_ratio": int(trace.macs[0]) / engine.model.static_macs,
                "exit_stage": int(trace.exit_stage[0]),
                "note": note,
            }
        )
        if args.draw and len(walked) < paths.MOST:
            walked.append(_walked(picture.numpy(), predictions[-1], engine.model))
    if failures and not predictions:
        first = failures[0]["reason"]
        count = len(failures)
        raise UserError(first if count == 1 else f"none of {count} images could be read; the first: {first}")
    for failure in failures:
        say(failure["reason"])
    if args.draw:
        paths.draw(walked, Path(args.draw))
    return {
        "run": str(args.run),
        "stages": engine.model.stage_lengths,
        **({"members": named.names} if len(named.names) > 1 else {}),
        "predictions": predictions,
        "failures": failures,
        "notes": _notes(engine.model, predictions) if len(named.names) == 1 else [],
        "exit_code": 2 if failures else 0,
    }


def _walked(picture: "np.ndarray", prediction: dict[str, Any], net: "DynamicNetwork | Cascade") -> "Walked":
    from spnet.report.paths import Walked

    return Walked(
        picture,
        f"{prediction['class']}, {100 * prediction['probability']:.0f} %",
        f"{100 * prediction['cost_ratio']:.0f} % of the static network's multiply-adds",
        prediction["path"],
        net.options,
        net.stage_lengths,
    )


def _pictures(names: list[str]) -> Iterator[str]:
    """The files named, and those in the folders named, as training on them would take them."""
    from spnet.data.listing import LeftOut, pictures_in
    from spnet.errors import UserError

    for name in names:
        folder = Path(name)
        if not os.path.isdir(folder):
            yield name
            continue
        left_out = LeftOut()
        files = pictures_in(folder, left_out, recursive=True)
        left_out.say(folder)
        if not files:
            raise UserError(f"'{folder}' has no images; give a folder that has, or picture files")
        yield from map(str, files)


def describe(result: dict[str, Any]) -> str:
    from spnet.terminal import printable

    if "out" in result:
        return describe_archive(result)
    lines = []
    for p in result["predictions"]:
        lines.append(
            f"{printable(p['image'])}: {printable(p['class'])}  ({100 * p['probability']:.1f} %)  "
            f"path {draw_path(p['path'], result['stages'])}  "
            f"{p['macs'] / 1e6:.3f} MMACs = {100 * p['cost_ratio']:.0f} % of static"
            + (f"  by {printable(result['members'][p['exit_stage']])}" if "members" in result else "")
            + (f"  [{p['note']}]" if p["note"] else "")
        )
    return "\n".join(lines + result["notes"])


def _notes(net: "DynamicNetwork", predictions: list[dict[str, Any]]) -> list[str]:
    """In words, when a network that may skip blocks skips none. A single picture says nothing: it may be hard."""
    full = [options - 1 for options in net.options]
    if len(predictions) < 2 or not any(net.gated) or any(p["path"] != full for p in predictions):
        return []
    return [f"note: nothing is skipped: every block ran for all {len(predictions)} pictures. A --max-cost skips more."]


def draw_path(path: list[int], stages: tuple[int, ...]) -> str:
    """`101|011|111`: one figure a block (its option), stages apart."""
    marks = "".join("-" if option < 0 else str(option) for option in path)
    ends = [sum(stages[: s + 1]) for s in range(len(stages))]
    return "|".join(marks[end - length : end] for end, length in zip(ends, stages, strict=True))
