"""One rule for whatever is read: a result, or one line and exit code 2; no traceback, no hang, nothing written by what
was refused."""

import faulthandler
import io
import json
import os
import re
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from spnet import UserError
from spnet.cli import main

SECONDS = 60
"""Of wall time that a case may take, many times what one takes on a busy machine."""
_SAID = re.compile(r"spnet: |epoch +\d+/|.* -> |\d+ of \d+ ")
"""Lines of progress and remarks, which may come before the last."""


class Hang(BaseException):
    """A case did not end in time."""


def command(folder: Path, *argv: object) -> str:
    """What is wrong with how `spnet ARGV` answers; empty if nothing is. `folder` holds all that it could spoil."""
    words = [str(part) for part in argv]
    before = listing(folder)
    out, err = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            with bounded(), redirect_stdout(out), redirect_stderr(err):
                code = main(words)
        except Hang:
            return f"{words}: did not end in {SECONDS} s"
        except BaseException as error:  # whatever it is, it is a finding
            return f"{words}: {_where(error)}"
    wrong = _wrong(code, out.getvalue(), err.getvalue(), "--json" in words)
    if not wrong and code == 2 and told:
        wrong = f"warns: {told[0].message}"
    if not wrong and code == 2 and listing(folder) != before:
        changed = sorted({Path(name).name for name, _ in listing(folder).items() ^ before.items()})
        wrong = f"was refused ({err.getvalue().splitlines()[-1]}) and changed {changed}"
    return f"{words}: {wrong}" if wrong else ""


def call(what: Callable[[], Any]) -> str:
    """The same of a call in Python: a result or a `UserError` of one line."""
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            what()
    except UserError as error:
        return "" if str(error) and "\n" not in str(error) else f"says {str(error)!r}"
    except Hang:
        return f"did not end in {SECONDS} s"
    except BaseException as error:
        return _where(error)
    return ""


def _wrong(code: Any, out: str, err: str, as_json: bool) -> str:
    lines = err.splitlines()
    if "Traceback" in err or not all(map(_SAID.match, lines)):
        return f"says {err[:300]!r}"
    if code == 0 and as_json:
        try:
            json.loads(out, parse_constant=_bare)
        except ValueError as error:
            return f"prints no strict JSON ({error}): {out[:200]!r}"
        return ""
    if code == 0:
        return ""
    if code == 1:
        return "" if lines and lines[-1].startswith("spnet: the run diverged: ") else f"exit code 1: {err[-300:]!r}"
    if code != 2 or not lines or not lines[-1].startswith("spnet: ") or len(lines[-1]) > 2000:
        return f"exit code {code}: {err[-300:]!r}"
    partly = as_json and out and json.loads(out).get("failures")
    return "" if partly or not out else f"refuses and prints {out[:200]!r}"


def _bare(name: str) -> float:
    raise ValueError(f"bare {name}")


def _where(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "spnet" in frame.filename]
    place = f"{frames[-1].filename.rsplit('spnet/', 1)[-1]}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:300]}"


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file below a folder, by what changes when it is written: number, size and time."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(place, name))
            size, time = (0, 0) if name in folders else (status.st_size, status.st_mtime_ns)
            found[os.path.join(place, name)] = (status.st_ino, size, time)
    return found


@contextmanager
def bounded() -> Iterator[None]:
    """`Hang` where the block takes too long; the process ends, with its stacks, where even that is not heard."""

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(5 * SECONDS, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def difference(before: bytes, after: bytes) -> str:
    """Where two contents differ first, and what stands there, for whoever mends what failed."""
    start = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(map(len, (before, after)))
    )
    return f"from byte {start} on {after[start : start + 80]!r} for {before[start : start + 80]!r}"
