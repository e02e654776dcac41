"""`spnet list`: what there is to choose from."""

import argparse
from typing import Any

from spnet.cli import Parser

KINDS = ("methods", "backbones", "recipes", "data", "pretrained")


def configure(parser: Parser, argv: list[str]) -> None:
    parser.add_argument("kind", metavar="KIND", help=", ".join(KINDS))


def run(args: argparse.Namespace) -> dict[str, Any]:
    from spnet.errors import choose

    kind = choose("list", args.kind, KINDS)
    if kind == "pretrained":
        return {"kind": kind, "entries": _pretrained()}
    return {"kind": kind, "entries": [{"name": name, "text": text} for name, text in _entries(kind)]}


def _entries(kind: str) -> list[tuple[str, str]]:
    if kind == "methods":
        from spnet.methods import list_methods, method_class

        return [(name, _idea(method_class(name).__module__)) for name in list_methods()]
    if kind == "backbones":
        from spnet.backbones import create_backbone, list_backbones
        from spnet.build import seeded

        with seeded(0):
            networks = [create_backbone(name, num_classes=10) for name in list_backbones()]
        return [(net.name, f"{net.static_macs / 1e6:.1f} MMACs at 32x32, {len(net.blocks)} blocks") for net in networks]
    if kind == "recipes":
        from spnet.recipes import RECIPES

        return [(name, (build.__doc__ or "").split("\n")[0]) for name, build in RECIPES.items()]
    from spnet import data

    return list(data.names())


def _pretrained() -> list[dict[str, Any]]:
    """The networks of the package with the figures of their records."""
    from spnet.runs.open import run_folder, shipped
    from spnet.runs.record import read_result

    entries = []
    for name in shipped():
        found = read_result(run_folder(name) / "result.json")
        final, config = found.final, found.config
        text = (
            f"{found.label} on {config.backbone}, {config.data}: {final.accuracy:.2f} % "
            f"(n = {final.n}), {final.macs_mean / 1e6:.3f} MMACs = {final.gflops_mean:.5f} GFLOPs = "
            f"{100 * final.cost_ratio:.1f} % of static"
        )
        figures = {key: getattr(final, key) for key in ("accuracy", "n", "macs_mean", "gflops_mean", "cost_ratio")}
        entries.append({"name": name, "text": text, **figures})
    return entries


def _idea(module: str) -> str:
    """The first paragraph of a module's docstring, on one line; where there is none, where to look."""
    import importlib

    paragraph = (importlib.import_module(module).__doc__ or "").strip().split("\n\n")[0]
    return " ".join(paragraph.split()) or f"defined in {module}"


def describe(result: dict[str, Any]) -> str:
    entries = result["entries"]
    if not entries:
        return f"no {result['kind']}"
    width = max(len(entry["name"]) for entry in entries)
    return "\n".join(f"{entry['name']:<{width}}  {entry['text']}" for entry in entries)
