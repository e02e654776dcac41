"""`spnet export`: a trained network as an ONNX file, verified before it is kept."""

import argparse
from typing import Any

from spnet.cli import Parser

REAL_IMAGES = 64


def configure(parser: Parser, argv: list[str]) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder, or the name of a shipped network")
    parser.add_argument("file", metavar="FILE.onnx", help="the file to write")
    parser.add_argument(
        "--batch-form", action="store_true", help="for batches (gather, scatter) instead of single images"
    )
    parser.add_argument(
        "--static-path", metavar="PATH", help="one path without routers: 'all', or a figure per block: 110|011|111"
    )
    parser.add_argument("--data", metavar="NAME[:PATH]", help="real images to verify on; default: the run's own")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from spnet.errors import UserError
    from spnet.inference.runtimes.onnx.library import load_runtime
    from spnet.runs.facts import home_of_data
    from spnet.runs.folder import read_config
    from spnet.runs.open import load, run_folder

    if args.batch_form and args.static_path is not None:
        raise UserError("--batch-form and --static-path exclude each other: a static path takes any batch anyway.")
    load_runtime()
    from spnet.inference.export import export_onnx, parse_path

    config, facts = read_config(run_folder(args.run))
    net = load(args.run)
    home = home_of_data(config.data, facts)
    images, note = _real_images(net, home) if args.data is None else (_images(net, args.data, home), "")
    path = parse_path(net, args.static_path) if args.static_path is not None else None
    form = "path" if args.static_path is not None else "batch" if args.batch_form else "single"
    exported = export_onnx(net, args.file, form=form, path=path, classes=facts["classes"], images=images)
    return {"run": str(args.run), **asdict(exported), "note": note}


def _real_images(net: Any, trained_on: str) -> tuple[Any, str]:
    """Test images of the run's data if it is on this machine, or None and why not."""
    from spnet.errors import UserError

    try:
        return _images(net, None, trained_on), ""
    except UserError as error:
        return None, f"compared on random images only: {error}"


def _images(net: Any, spec: str | None, trained_on: str) -> Any:
    from spnet.data.match import load_for

    data = load_for(net.classes, net.input_shape, spec, trained_on, num_classes=net.num_classes, may_download=False)
    return data.test.select(range(min(REAL_IMAGES, len(data.test)))).images


def describe(result: dict[str, Any]) -> str:
    lines = [
        f"wrote {result['file']}  ({result['form']} form, {result['bytes'] / 1e6:.2f} MB)",
        f"verified against the eager network: {result['paths']} forced path(s), {result['images']} images "
        f"({result['real']} real, {result['close']} too close to call), logits within {result['error']:.1e}",
    ]
    return "\n".join([*lines, result["note"]] if result["note"] else lines)
