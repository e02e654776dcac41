"""`--workers N` and `--cache-gb G`: how photos are read, the same for every verb that reads them."""

import argparse
import math

from spnet.cli.threads import MOST


def _workers(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"workers must be 1 to {MOST}, not {value}")
    return value


def _gigabytes(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"gigabytes must be 0 or more, not {text}")
    return value


def add_workers(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--workers", type=_workers, default=1, metavar="N", help="threads that decode photos; default 1"
    )


def add_loading(parser: argparse.ArgumentParser) -> None:
    add_workers(parser)
    parser.add_argument(
        "--cache-gb",
        type=_gigabytes,
        default=0.0,
        metavar="G",
        help="gigabytes of decoded photos to keep in memory; default 0",
    )
