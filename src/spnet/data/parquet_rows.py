"""Rows of Parquet files read forward, a few at a time: what lies between them and the start of a file is passed over
once, however large its row groups are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spnet.data.parquet_file import IMAGE_COLUMNS, check_image_type, column_named, encoded, readable
from spnet.errors import UserError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

AT_ONCE = 32
"""Rows in memory: photos of a camera take megabytes each."""
BUFFER = 1 << 20


def count_rows(file: Path) -> int:
    """How many pictures a file holds; UserError for one without a column of pictures."""
    with readable(file):
        import pyarrow.parquet as pq

        with pq.ParquetFile(file) as parquet:
            _image_column(file, parquet)
            return parquet.metadata.num_rows


class ForwardRows:
    """Reads on where it was: for who asks for the rows of a file in rising order. Others are served too, from the
    start of their row group."""

    def __init__(self) -> None:
        self._file = ""
        self._next = 0
        self._rows: Iterator[bytes | None] = iter(())

    def __call__(self, file: str, start: int, stop: int) -> Iterator[bytes]:
        """The encoded pictures in rows `start` to `stop` (left out) of a file; nothing, `b""`, for an empty cell.

        Raises:
            UserError: the file cannot be read, or has fewer rows.
        """
        if file != self._file or start < self._next:
            self._open(file, start)
        while self._next < stop:
            with readable(Path(file)):
                try:
                    data = next(self._rows)
                except StopIteration:
                    raise UserError(f"'{file}' has {self._next} rows now, and had {stop} or more: start anew") from None
            self._next += 1
            if self._next > start:
                yield data or b""

    def _open(self, file: str, start: int) -> None:
        import pyarrow.parquet as pq

        with readable(Path(file)):
            parquet = pq.ParquetFile(file, buffer_size=BUFFER)
        sizes = [parquet.metadata.row_group(k).num_rows for k in range(parquet.metadata.num_row_groups)]
        first = 0
        while sizes and sum(sizes[: first + 1]) <= start < sum(sizes):
            first += 1
        self._file, self._next = file, sum(sizes[:first])
        self._rows = _pictures(Path(file), parquet, list(range(first, len(sizes))))


def _pictures(file: Path, parquet: pq.ParquetFile, row_groups: list[int]) -> Iterator[bytes | None]:
    column = _image_column(file, parquet)
    with parquet:
        for batch in parquet.iter_batches(AT_ONCE, row_groups=row_groups, columns=[column]):
            yield from map(encoded, batch.column(0).to_pylist())


def _image_column(file: Path, parquet: pq.ParquetFile) -> str:
    schema = parquet.schema_arrow
    name = column_named(file, schema, IMAGE_COLUMNS)
    check_image_type(file, schema.field(name))
    return name
