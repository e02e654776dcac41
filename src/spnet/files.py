"""Writing files so that a kill at any moment leaves either the old file or the new one, never half of one."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spnet.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary neighbour of `path`, flush it to disk, then rename it over `path`.

    Folders that are missing are made; if the writing fails they are removed again.
    """
    if not path.name:
        raise UserError(f"'{path}' names no file: choose another --out.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    made: list[Path] = []
    try:
        made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


@contextlib.contextmanager
def alone(lock: Path, wait: bool = True) -> Iterator[None]:
    """One process at a time, where the system has file locks; the others wait, then look at what the first has done.

    The lock ends with the process that holds it, however that ends; its file goes when the block ends.

    Raises:
        BlockingIOError: another process is inside, and `wait` is False.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    while True:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is(file.fileno(), lock):
                continue  # whoever held it has removed it: a third process may lock a new one
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    lock.unlink()
            return


def _is(file: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed process left below `folder`."""
    for temporary in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Through Python's own file: a full disk is an OSError here, the libraries' writers raise errors of their own."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, record: Any) -> None:
    write_text(path, json.dumps(record, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file; `UserError` when it is missing, truncated or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): restore it or start the run anew.") from error


def cannot_write(path: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(f"cannot write {path}: {reason}. Choose another --out or make room.")
