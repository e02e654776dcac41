"""One of several processes of a command, as `torchrun` starts them: the first one speaks for all."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable

PAUSE = 10.0
"""Seconds after which a process that failed speaks: the launcher has ended it by then if the first one failed too,
which may have started later and takes a while to end."""


def speaks() -> bool:
    """Whether this process is the only one of its command, or the first."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


def silently(answer: Callable[[], int]) -> int:
    """The exit code of `answer()`, of which nobody hears a word; where it fails and nobody has ended this process yet,
    its last line, which says why."""
    heard = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(heard):
        code = answer()
    lines = heard.getvalue().splitlines()
    if code not in (0, 130) and lines:  # Ctrl-C reaches all of them
        time.sleep(PAUSE + 0.2 * int(os.environ["RANK"]))
        rank, processes = int(os.environ["RANK"]) + 1, os.environ["WORLD_SIZE"]
        print(f"{lines[-1]} (process {rank} of {processes})", file=sys.stderr, flush=True)
    return code
