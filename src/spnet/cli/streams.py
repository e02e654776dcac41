"""The standard streams, whatever the caller did to them: closed, without a reader, or of a narrow encoding."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


@contextmanager
def usable_streams() -> Iterator[None]:
    """Until the block ends: a closed stream swallows what it gets, a stderr whose reader has left falls silent, and
    what stdout's encoding lacks is written escaped.

    A reader who leaves stdout still ends the command that writes there: it is the listing that was read.
    """
    before = sys.stdout, sys.stderr
    for number in (0, 1, 2):
        _occupy(number)
    out = sys.stdout if sys.stdout is not None else _nowhere()
    sys.stdout, sys.stderr = out, _Progress(sys.stderr if sys.stderr is not None else _nowhere())  # type: ignore[assignment]
    narrow = out if isinstance(out, io.TextIOWrapper) and out.errors == "strict" else None
    if narrow is not None:
        narrow.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        if narrow is not None:
            narrow.reconfigure(errors="strict")
        sys.stdout, sys.stderr = before


def hush(stream: TextIO) -> None:
    """Let a stream without a reader write into nothing from now on, also when the interpreter flushes it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _occupy(number: int) -> None:
    """Open a closed standard descriptor on nothing: else the next file opened gets its number, and what a library
    complains about on descriptor 2 is written into it."""
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _nowhere() -> TextIO:
    return open(os.devnull, "w")


class _Progress:
    """A stderr that never stops the work it speaks of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            hush(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            hush(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
