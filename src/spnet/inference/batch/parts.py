"""The folder of finished parts beside a result, and the file they become.

    OUT.parts/manifest.json      what is computed: network, photos, settings
    OUT.parts/part-000017.parquet
    OUT                          all parts in order; what was computed stands in its metadata, and the folder is gone

Each file is written whole or not at all: a kill costs the parts under way.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spnet.errors import UserError
from spnet.files import alone, cannot_write, is_stream, read_json, remove_leftovers, write_atomically, write_json
from spnet.inference.batch.listing import Part
from spnet.inference.batch.rows import SCHEMA

KEY = b"spnet"
"""Of the metadata."""
MANIFEST, LOCK, WHOLE = "manifest.json", ".lock", "whole.parquet"
NAMES = re.compile(r"part-\d+\.parquet")
OTHER = {"network": "another network", "photos": "another list of photos"}
"""Entries of a manifest that are too long to be shown."""


def finished(out: Path, about: Mapping[str, Any]) -> bool:
    """Whether `out` is the result of just this.

    Raises:
        UserError: it is there, and is something else; or it is a place where no file can be.
    """
    try:
        if is_stream(out) or out.is_dir():
            raise UserError(f"'{out}' is no regular file: --out names a new one, and parts are kept beside it.")
        if not out.exists():
            return False
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        made = json.loads((pq.read_schema(out).metadata or {})[KEY])
    except (OSError, ValueError, KeyError, pa.ArrowException):
        raise UserError(f"'{out}' is there already, and is no result of predict: choose another --out.") from None
    _refuse_other(out, made, about)
    return True


class Parts:
    """The parts of one result. Opened by one process at a time."""

    def __init__(self, out: Path, about: Mapping[str, Any]) -> None:
        self.out = Path(os.path.realpath(out))
        self.about = dict(about)
        self.folder = self.out.with_name(self.out.name + ".parts")

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder, made if it is missing, until the block ends.

        Raises:
            UserError: another process has it, it holds parts of something else, or it cannot be written.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._remove_empty)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(alone(self.folder / LOCK, wait=False))
                self._check()
                stack.callback(self._leave)
            except BlockingIOError:
                raise UserError(f"another process computes {self.out}: wait for it, or choose another --out.") from None
            except OSError as error:
                raise cannot_write(self.folder, error) from error
            yield

    def _remove_empty(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _leave(self) -> None:
        """Without a part there is nothing to go on with."""
        if not self._there():
            self._clear()

    def _there(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if NAMES.fullmatch(path.name)]

    def _check(self) -> None:
        manifest = self.folder / MANIFEST
        if manifest.exists() and self._there():
            _refuse_other(self.folder, read_json(manifest), self.about)
        remove_leftovers(self.folder)
        if any(path.name not in (MANIFEST, LOCK, WHOLE) for path in self.folder.iterdir()) and not manifest.exists():
            raise UserError(f"'{self.folder}' holds something else than parts: choose another --out.")
        write_json(manifest, self.about)

    def has(self, part: Part) -> bool:
        """Whether the part is finished."""
        try:
            with pq.ParquetFile(self._file(part)) as file:
                return file.metadata.num_rows == len(part) and file.schema_arrow.equals(SCHEMA)
        except (OSError, pa.ArrowException):
            return False

    def write(self, part: Part, rows: pa.Table) -> None:
        write_atomically(self._file(part), lambda path: pq.write_table(rows, path))

    def merge(self, parts: Sequence[Part]) -> None:
        """All parts, in order, to the result; then they go."""
        schema = SCHEMA.with_metadata({KEY: json.dumps(self.about)})

        def write(path: Path) -> None:
            with pq.ParquetWriter(path, schema) as writer:
                for part in parts:
                    with pq.ParquetFile(self._file(part)) as file:
                        writer.write_table(file.read())

        whole = self.folder / WHOLE
        write_atomically(whole, write)
        try:
            os.replace(whole, self.out)
        except OSError as error:
            raise cannot_write(self.out, error) from error
        self._clear()

    def forget(self) -> None:
        """Delete the parts of a finished result, where a kill left some."""
        if self.folder.is_dir():
            with self.opened():
                self._clear()

    def _clear(self) -> None:
        """Delete the parts, and nothing else."""
        for path in [*self._there(), self.folder / WHOLE, self.folder / MANIFEST]:
            path.unlink(missing_ok=True)

    def _file(self, part: Part) -> Path:
        return self.folder / f"part-{part.number:06}.parquet"


def _refuse_other(where: Path, made: Any, about: Mapping[str, Any]) -> None:
    """`UserError` that says what differs between what was computed there and what is to be."""
    made = made if isinstance(made, dict) else {}
    other = [
        OTHER[name] if name in OTHER else f"{name} {made.get(name)} instead of {value}"
        for name, value in about.items()
        if made.get(name) != value
    ]
    if other:
        raise UserError(f"'{where}' was made with {', '.join(other)}: choose another --out, or delete it.")
