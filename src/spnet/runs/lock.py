"""One writer a run folder."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from spnet.errors import UserError
from spnet.files import alone, cannot_write

NAME = ".lock"
_mine: set[tuple[Path, int]] = set()
"""(folder, thread) that hold a lock of this process."""


@contextlib.contextmanager
def held(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a run folder until the block ends, and make it if it is missing; what is still empty at the end goes.

    Whoever holds it may hold it again.

    Args:
        wait: for a process that writes there, instead of refusing.

    Raises:
        UserError: another process writes there, or nobody may.
    """
    mine = (folder.absolute(), threading.get_ident())
    if mine in _mine:
        yield
        return
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, made)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone(folder / NAME, wait))
        except BlockingIOError as error:
            raise UserError(
                f"{folder} is being trained by another process: wait for it, or choose another --out."
            ) from error
        except (OSError, ValueError) as error:  # a NUL in the name
            raise cannot_write(folder, error) from error
        _mine.add(mine)
        stack.callback(_mine.discard, mine)
        yield


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for folder in folders:
            folder.rmdir()
