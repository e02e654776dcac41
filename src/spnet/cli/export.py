"""`spnet export`: a trained network as an ONNX file, or as a folder of static ones, verified before it is kept."""

import argparse
from typing import Any

from spnet.cli import Parser
from spnet.cli.named import HELP, Named, open_named

REAL_IMAGES = 64


def configure(parser: Parser, argv: list[str]) -> None:
    parser.add_argument("run", metavar="RUN", help=HELP)
    parser.add_argument(
        "file",
        metavar="FILE.onnx",
        help="the file to write; of a cascade its members lie beside; of --stages a new folder",
    )
    parser.add_argument(
        "--batch-form", action="store_true", help="for batches (gather, scatter) instead of single images"
    )
    parser.add_argument(
        "--static-path", metavar="PATH", help="one path without routers: 'all', or a figure per block: 110|011|111"
    )
    parser.add_argument(
        "--stages",
        action="store_true",
        help="a folder of static files from router to router, for runtimes without If, and a script that runs them",
    )
    parser.add_argument(
        "--exit-confidence", type=float, metavar="C", help="of --stages: images leave at stage heads this sure, too"
    )
    parser.add_argument(
        "--budget", type=float, metavar="B", help="calibrate on training images first, to this share of the static cost"
    )
    parser.add_argument("--data", metavar="NAME[:PATH]", help="real images to verify on; default: the run's own")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="8-bit weights and features, calibrated on training images; accuracy and speed are told beside fp32",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from spnet.errors import UserError
    from spnet.inference.cascade import Cascade
    from spnet.inference.runtimes.onnx.library import load_runtime

    if args.batch_form and args.static_path is not None:
        raise UserError("--batch-form and --static-path exclude each other: a static path takes any batch anyway.")
    if args.stages and (args.batch_form or args.static_path is not None):
        raise UserError("--stages are for single images: leave out --batch-form and --static-path.")
    if args.exit_confidence is not None and not args.stages:
        raise UserError("--exit-confidence is for --stages: an exported file runs to the end.")
    load_runtime()
    from spnet.inference.export import export_cascade, export_int8, export_onnx, export_stages, parse_path

    named = open_named(args.run)
    if args.budget is not None:
        named.settle(named.data(args.data, may_download=False).train, args.budget)
    images, note = _real_images(named) if args.data is None else (_images(named, args.data), "")
    form = "path" if args.static_path is not None else "batch" if args.batch_form else "single"
    told: dict[str, Any] = {"run": str(args.run), "budget": args.budget, "note": note}
    classes = named.runs[-1].classes
    if isinstance(named.net, Cascade):
        one = {"--static-path": args.static_path is not None, "--stages": args.stages, "--int8": args.int8}
        for flag, given in one.items():
            if given:
                raise UserError(f"{flag} is of one network: export a member on its own.")
        whole = export_cascade(named.net, args.file, form=form, names=named.names, classes=classes, images=images)
        return {**told, "confidences": named.net.confidences, **asdict(whole)}
    if args.stages and args.int8:
        raise UserError("--int8 is of one file, --stages of many in fp32: choose one of them.")
    if args.stages:
        confidence = args.exit_confidence
        folder = export_stages(named.net, args.file, exit_confidence=confidence, classes=classes, images=images)
        return {**told, **asdict(folder)}
    path = parse_path(named.net, args.static_path) if args.static_path is not None else None
    how: dict[str, Any] = {"form": form, "path": path, "classes": classes, "images": images}
    if not args.int8:
        return {**told, **asdict(export_onnx(named.net, args.file, **how))}
    exported = export_int8(named.net, args.file, named.data(args.data, may_download=False), **how)
    result = asdict(exported)
    return {**told, **result, "int8": {**result["int8"], "told": str(exported.int8)}}


def _real_images(named: Named) -> tuple[Any, str]:
    """Test images of the run's data if it is on this machine, or None and why not."""
    from spnet.errors import UserError

    try:
        return _images(named, None), ""
    except UserError as error:
        return None, f"compared on random images only: {error}"


def _images(named: Named, spec: str | None) -> Any:
    data = named.data(spec, may_download=False)
    return data.test.select(range(min(REAL_IMAGES, len(data.test)))).images


def describe(result: dict[str, Any]) -> str:
    if "members" in result:
        return _describe_cascade(result)
    if "folder" in result:
        exits = f", {result['exits']} exits" if result["exits"] else ""
        wrote = f"{result['folder']}  ({result['files']} files, {result['steps']} steps{exits}"
        also = f"run_stages.py in it runs them: python {result['folder']}/run_stages.py IMAGES.npy [openvino]"
    else:
        wrote, also = f"{result['file']}  ({result['form']} form", ""
    referee = "the quantised static network" if result.get("int8") else "the eager network"
    lines = [
        f"wrote {wrote}, {result['bytes'] / 1e6:.2f} MB)",
        f"verified against {referee}: {result['paths']} forced path(s), {result['images']} images "
        f"({result['real']} real, {result['close']} too close to call), logits within {result['error']:.1e}",
    ]
    lines += [result["int8"]["told"]] if result.get("int8") else []
    return "\n".join([*lines, *(line for line in (also, result["note"]) if line)])


def _describe_cascade(result: dict[str, Any]) -> str:
    whole = f"wrote {result['whole']}, the whole, which agrees with its members on {result['images']} images, and "
    lines = [
        (whole if result["whole"] else "wrote ") + f"{result['recipe']}, which names the members:",
        *(describe({**member, "note": ""}) for member in result["members"]),
    ]
    return "\n".join([*lines, result["note"]] if result["note"] else lines)
