"""`spnet predict`: class, probability, path and cost of single pictures."""

import argparse
from pathlib import Path
from typing import Any

from spnet.cli import Parser
from spnet.cli.rules import add_rules, rules_of


def configure(parser: Parser, argv: list[str]) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder, or the name of a shipped network")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="picture files")
    parser.add_argument(
        "--executor",
        default="branching",
        metavar="E",
        help="masked, branching, gathered, onnx or auto (default branching: made for single pictures)",
    )
    add_rules(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from spnet.data.pictures import read_picture
    from spnet.engine import Engine
    from spnet.runs import load, recorded_cost, run_folder
    from spnet.training.checkpoint import read_config

    _, facts = read_config(run_folder(args.run))
    engine = Engine(load(args.run), args.executor, expected_cost=recorded_cost(args.run), **rules_of(args))
    channels, height, width = engine.model.input_shape
    predictions = []
    for name in args.images:
        picture, note = read_picture(Path(name), channels, (height, width))
        trace = engine(picture[None])
        probability, predicted = trace.logits.softmax(1).max(1)
        predictions.append(
            {
                "image": name,
                "class": facts["classes"][int(predicted)],
                "probability": float(probability),
                "path": trace.decisions[0].tolist(),
                "macs": int(trace.macs[0]),
                "cost_ratio": int(trace.macs[0]) / engine.model.static_macs,
                "exit_stage": int(trace.exit_stage[0]),
                "note": note,
            }
        )
    return {"run": str(args.run), "stages": engine.model.backbone.stages.lengths, "predictions": predictions}


def describe(result: dict[str, Any]) -> str:
    lines = []
    for p in result["predictions"]:
        lines.append(
            f"{p['image']}: {p['class']}  ({100 * p['probability']:.1f} %)  "
            f"path {draw_path(p['path'], result['stages'])}  "
            f"{p['macs'] / 1e6:.3f} MMACs = {100 * p['cost_ratio']:.0f} % of static"
            + (f"  [{p['note']}]" if p["note"] else "")
        )
    return "\n".join(lines)


def draw_path(path: list[int], stages: tuple[int, ...]) -> str:
    """`101|011|111`: one figure a block (its option), stages apart."""
    marks = "".join("-" if option < 0 else str(option) for option in path)
    ends = [sum(stages[: s + 1]) for s in range(len(stages))]
    return "|".join(marks[end - length : end] for end, length in zip(ends, stages, strict=True))
