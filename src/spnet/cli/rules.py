"""The rules a trained network can be run under, as options that several verbs share."""

import argparse
from typing import Any

from spnet.cli import Parser


def add_exit(parser: Parser) -> None:
    parser.add_argument(
        "--exit-confidence",
        type=float,
        metavar="P",
        help="own decisions leave at the first stage this sure of its class",
    )


def add_rules(parser: Parser) -> None:
    add_exit(parser)
    parser.add_argument(
        "--max-cost", type=float, metavar="C", help="bound the cost of every single image to this share of the static"
    )


def rules_of(args: argparse.Namespace) -> dict[str, Any]:
    """As `Engine` takes them."""
    return {"exit_confidence": args.exit_confidence, "max_cost": args.max_cost}
