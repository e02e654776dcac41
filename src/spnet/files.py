"""Writing files so that a kill at any moment leaves either the old file or the new one, never half of one.

A symbolic link stays: its target is written. Devices, pipes and open descriptors (`/dev/stdout`) are written into.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from spnet.errors import UserError

TEMPORARY = re.compile(r"\.spnet-\d+-[0-9a-f]{8}\.tmp")
"""Names of our unfinished files: nobody else's."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary neighbour of the file behind `path`, flush it to disk, then rename it over that file.

    Folders that are missing are made; if the writing fails they are removed again. What cannot be replaced (a device,
    a pipe, an open descriptor) gets the finished content instead.
    """
    if not path.name:
        raise UserError(f"'{path}' names no file: choose another --out.")
    try:
        if is_stream(path):
            _write_into(path, write)
        else:
            _replace(Path(os.path.realpath(path)), write)
    except OSError as error:
        raise cannot_write(path, error) from error


def _replace(target: Path, write: Callable[[Path], None]) -> None:
    """The regular file `target`, old or new one."""
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    if target.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    if mode is not None and not os.access(target, os.W_OK):
        raise PermissionError(0, "Permission denied")
    temporary = target.with_name(f".spnet-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    made: list[Path] = []
    try:
        made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        if mode is not None:
            temporary.chmod(mode)  # whoever could read the old file can read the new one, and nobody else
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


def _write_into(path: Path, write: Callable[[Path], None]) -> None:
    """Finish the content elsewhere, then send it: nothing half done reaches a reader."""
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder) / "content"
        write(content)
        number = _descriptor(path)
        if number == 1:
            sys.stdout.flush()
        opened = os.open(path, os.O_WRONLY | os.O_NOCTTY) if number is None else os.dup(number)
        with content.open("rb") as finished, os.fdopen(opened, "wb") as sink:
            shutil.copyfileobj(finished, sink)


def is_stream(path: Path) -> bool:
    """Whether `path` is to be written into, not replaced: a device, a pipe, an open descriptor of this process."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_stdout(path: str | Path) -> bool:
    """Whether writing to `path` would write to this process's standard output."""
    return _descriptor(Path(path)) == 1


def _descriptor(path: Path) -> int | None:
    """The number of this process's open file that `path` names (`/dev/stdout`, `/dev/fd/3`), through any links.

    Opened by its path such a file would be cut to nothing and written from its start, under whoever goes on with it.
    """
    for _ in range(40):  # as many links as the system follows
        place = Path(os.path.realpath(path.parent)) / path.name
        if place.parent == Path(f"/proc/{os.getpid()}/fd") and place.name.isdecimal():
            return int(place.name)
        if not place.is_symlink():
            return None
        path = place.parent / os.readlink(place)
    return None


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


def remove_leftovers(*folders: Path) -> None:
    """Delete the temporary files that a killed process left directly in `folders`; ours alone."""
    for folder in folders:
        for temporary in folder.glob(".spnet-*.tmp"):
            if TEMPORARY.fullmatch(temporary.name):
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
    """Strict JSON: what is not a finite number is null."""
    write_text(path, json.dumps(strict(record), indent=1, allow_nan=False) + "\n")


def strict(record: Any) -> Any:
    """The record with None for every number that JSON cannot say (NaN, infinite), dataclasses as their fields."""
    if is_dataclass(record) and not isinstance(record, type):
        record = asdict(record)
    if isinstance(record, float):
        return record if record - record == 0 else None
    if isinstance(record, dict):
        return {key: strict(value) for key, value in record.items()}
    return [strict(value) for value in record] if isinstance(record, (list, tuple)) else record


def read_json(path: Path) -> Any:
    """Parse a JSON file; `UserError` when it is missing, truncated, not JSON or nested without end."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): restore it or start the run anew.") from error


def cannot_write(path: Path, error: OSError | ValueError) -> UserError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return UserError(f"cannot write {path}: {reason}. Choose another --out or make room.")
