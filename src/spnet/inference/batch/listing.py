"""Which photos to classify, in which order, cut into parts that are computed one by one."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

from spnet.data.listing import LeftOut, pictures_in
from spnet.data.parquet_file import row_name
from spnet.data.parquet_rows import ForwardRows, count_rows
from spnet.errors import UserError

PART = 1024
"""Photos of a part: what a kill may cost."""


class Photo(NamedTuple):
    """Attributes:
    path: what the result calls it, the file or `FILE#ROW`.
    name: what errors call it.
    source: the file, or the encoded picture.
    """

    path: str
    name: str
    source: Path | bytes


class Part(Protocol):
    """A run of photos, small enough to be sent. Has its place in the list as `number`."""

    @property
    def number(self) -> int: ...

    def __len__(self) -> int: ...

    def photos(self, rows: ForwardRows, base: str = "") -> Iterator[Photo]:
        """In order. `rows` reads Parquet files, best in rising order; `base` is what relative names are relative to,
        the working folder when left out."""
        ...


@dataclass(frozen=True)
class FilePart:
    number: int
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def photos(self, rows: ForwardRows, base: str = "") -> Iterator[Photo]:
        return (Photo(path, f"'{path}'", Path(base, path)) for path in self.paths)


@dataclass(frozen=True)
class RowPart:
    """Rows `start` to `stop` (left out) of a Parquet file."""

    number: int
    file: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def photos(self, rows: ForwardRows, base: str = "") -> Iterator[Photo]:
        for row, data in enumerate(rows(os.path.join(base, self.file), self.start, self.stop), self.start):
            yield Photo(f"{self.file}#{row}", row_name(self.file, row), data)


@dataclass(frozen=True)
class Listing:
    """Attributes:
    parts: in order, none empty.
    places: what every machine that computes has to have. Of a folder its first photo too: where a shared disk is not
        mounted the folder may be there, and empty.
    fingerprint: 64 hex digits over names and sizes; of Parquet files, over their sizes and counts.
    """

    parts: Sequence[Part]
    places: tuple[Path, ...]
    fingerprint: str

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def list_folder(folder: Path, part: int = PART) -> Listing:
    """Every picture in a folder and in its inner folders, as `spnet predict` takes them; each folder's own first, by
    name. What is no picture is counted in one line on stderr.

    Raises:
        UserError: no folder, or none with pictures.
    """
    if not os.path.isdir(folder):
        raise UserError(f"'{folder}' is no folder; for Parquet files there is --parquet")
    left_out = LeftOut()
    paths = [str(path) for path in pictures_in(folder, left_out, recursive=True)]
    left_out.say(folder)
    if not paths:
        raise UserError(f"'{folder}' has no images; give a folder that has")
    cut = [FilePart(k, tuple(paths[at : at + part])) for k, at in enumerate(range(0, len(paths), part))]
    return Listing(cut, (folder, Path(paths[0])), _fingerprint(f"{path} {_size(path)}" for path in paths))


def list_parquet(files: Sequence[Path], part: int = PART) -> Listing:
    """The rows of Parquet files with a column `image` or `img`, in the Hugging Face layout or plain binary; files in
    the order of their names, whatever the order they are given in.

    Raises:
        UserError: a file that is not there, is none of this kind, or is given twice; or no rows at all.
    """
    files = sorted(files)
    if not files:
        raise UserError("give at least one Parquet file")
    if twice := [file for file, following in pairwise(files) if file == following]:
        raise UserError(f"'{twice[0]}' is given twice; give each file once")
    counts = [count_rows(file) for file in files]
    pieces = [
        (str(file), start, min(start + part, count))
        for file, count in zip(files, counts, strict=True)
        for start in range(0, count, part)
    ]
    if not pieces:
        raise UserError(f"'{files[0]}' has no rows; give files with images")
    lines = (f"{file} {_size(file)} {count}" for file, count in zip(files, counts, strict=True))
    return Listing([RowPart(k, *piece) for k, piece in enumerate(pieces)], tuple(files), _fingerprint(lines))


def _size(path: str | Path) -> int:
    """In bytes; -1 for what has gone meanwhile."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _fingerprint(lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(os.fsencode(line) + b"\0")
    return digest.hexdigest()
