"""Where CIFAR lies on this machine when no path is given."""

import os
from pathlib import Path

from spnet.data.cache import cache_root
from spnet.errors import UserError

VARIABLE = "SPNET_DATA"


def find(name: str, names: tuple[str, ...]) -> Path | None:
    """The first of: what the environment variable SPNET_DATA says, `~/.cache/spnet/NAME` (see `cache_root`); else None.

    SPNET_DATA holds one or more entries, separated as in PATH (':' on Unix): a folder that contains NAME/, or
    `NAME:PATH`
    for one of `names`. UserError if an entry does not exist, or one for this name is not there.
    """
    for entry_name, path in _entries(os.environ.get(VARIABLE, ""), names):
        if not path.exists():
            raise UserError(
                f"the environment variable {VARIABLE} names '{path}', which does not exist; correct or unset it"
            )
        if entry_name == name:
            return path
        if entry_name is None and (path / name).exists():
            return path / name
    cached = cache_root() / name
    if cached.is_dir() and any(child.suffix not in (".part", ".lock") for child in cached.iterdir()):
        return cached
    return None


def _entries(text: str, names: tuple[str, ...]) -> list[tuple[str | None, Path]]:
    """[(name or None, path)]. On Unix the separator also stands in `NAME:PATH`: a known name takes the next part."""
    entries: list[tuple[str | None, Path]] = []
    pending: str | None = None
    for part in text.split(os.pathsep):
        head, colon, tail = part.partition(":")
        if pending is None and head in names and colon:
            entries.append((head, _expanded(tail)))
        elif pending is None and part in names:
            pending = part
        elif part:
            entries.append((pending, _expanded(part)))
            pending = None
    if pending is not None:
        raise UserError(f"the environment variable {VARIABLE} ends with '{pending}' but no path; write {pending}:PATH")
    return entries


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # `~` without a home
        raise UserError(f"the environment variable {VARIABLE} names '{text}', but there is no home folder") from error
