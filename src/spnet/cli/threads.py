"""`--threads N`, the same for every verb that computes."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager


def add_threads(parser: argparse.ArgumentParser, of: str = "") -> None:
    parser.add_argument("--threads", type=_count, metavar="N", help=f"torch threads{of}; default: torch's own choice")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"a number from 1 to 1024, not '{text}'")
    return int(text)


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Let torch compute with so many threads until the block ends; None changes nothing."""
    if threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
