"""`--threads N`, the same for every verb that computes."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from spnet.errors import UserError

MOST = 1024


def add_threads(parser: argparse.ArgumentParser, of: str = "") -> None:
    parser.add_argument("--threads", type=int, metavar="N", help=f"torch threads{of}; default: torch's own choice")


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Let torch compute with so many threads until the block ends; None changes nothing."""
    if threads is None:
        yield
        return
    if not 1 <= threads <= MOST:
        bound = f"at least 1, not {threads}" if threads < 1 else f"at most {MOST}, not {threads}"
        raise UserError(f"threads must be {bound}.")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
