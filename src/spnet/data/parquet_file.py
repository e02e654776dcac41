"""One Parquet file in the Hugging Face image layout to arrays.

Columns: `image` (or `img`), a struct<bytes, path> or plain binary with one encoded picture a row; `label` (or
`fine_label`), an integer. Other columns are not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spnet.data.cache import decoded
from spnet.data.reason import reason
from spnet.data.spec import Spec
from spnet.data.stack import stack_pictures
from spnet.errors import UserError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")


def read_file(file: Path, spec: Spec) -> tuple[np.ndarray, np.ndarray, tuple[str, ...] | None]:
    """(images uint8 (N, C, H, W), labels int64 (N,), class names if the file carries them).

    UserError for a file that is corrupt or empty, lacks a column, or holds a null or a picture that does not decode.
    """
    with readable(file):
        import pyarrow.parquet as pq

        parquet = pq.ParquetFile(file)
        with parquet:
            schema = parquet.schema_arrow
            image_column = column_named(file, schema, IMAGE_COLUMNS)
            label_column = column_named(file, schema, LABEL_COLUMNS)
            _check_types(file, schema.field(image_column), schema.field(label_column))
            if parquet.metadata.num_rows == 0:
                raise UserError(f"'{file}' has no rows; give a file with images")
            images_NCHW, label_N = decoded(
                file, f"size={spec.size}", lambda: _decode(file, parquet, image_column, label_column, spec)
            )
            return images_NCHW, label_N, class_names(schema.metadata, label_column)


def encoded_columns(file: Path) -> tuple[Any, np.ndarray, tuple[str, ...] | None]:
    """(the column of encoded pictures, labels int64 (N,), class names if the file carries them). Nothing is decoded.
    UserError as of `read_file`."""
    with readable(file):
        import pyarrow.parquet as pq

        with pq.ParquetFile(file, memory_map=True) as parquet:
            schema = parquet.schema_arrow
            image_column = column_named(file, schema, IMAGE_COLUMNS)
            label_column = column_named(file, schema, LABEL_COLUMNS)
            _check_types(file, schema.field(image_column), schema.field(label_column))
            if parquet.metadata.num_rows == 0:
                raise UserError(f"'{file}' has no rows; give a file with images")
            table = parquet.read([image_column, label_column])
    labels = table.column(label_column).to_pylist()
    for row, label in enumerate(labels):
        check_label(label, row_name(file, row), label_column)
    return table.column(image_column), np.array(labels, dtype=np.int64), class_names(schema.metadata, label_column)


def check_label(label: int | None, name: str, column: str) -> None:
    if label is None or not -(2**63) <= label < 2**63:
        raise UserError(f"{name} has no valid label ({label}) in column '{column}'; remove the row")


def class_names(metadata: dict[bytes, bytes] | None, label_column: str) -> tuple[str, ...] | None:
    """Class names in a schema's metadata, under `huggingface` (ClassLabel) or `class_names`; None if there are none."""
    for key in (b"huggingface", b"class_names"):
        try:
            value: Any = json.loads((metadata or {})[key])
            if key == b"huggingface":
                value = value["info"]["features"][label_column]["names"]
            names = value[label_column] if isinstance(value, dict) else value
            if isinstance(names, list) and names:
                return tuple(str(name) for name in names)
        except (KeyError, RecursionError, TypeError, ValueError):
            continue
    return None


def _decode(
    file: Path, parquet: pq.ParquetFile, image_column: str, label_column: str, spec: Spec
) -> tuple[np.ndarray, np.ndarray]:
    """Walk through the file once: pictures are decoded as they are met, labels gathered on the way."""
    labels: list[int] = []

    def pictures() -> Iterator[tuple[str, bytes]]:
        for batch in parquet.iter_batches(batch_size=1000, columns=[image_column, label_column]):
            cells = batch.column(image_column).to_pylist()
            for cell, label in zip(cells, batch.column(label_column).to_pylist(), strict=True):
                name = row_name(file, len(labels))
                data = encoded(cell)
                if data is None:
                    raise UserError(f"{name} has no image bytes in column '{image_column}'; remove the row")
                check_label(label, name, label_column)
                labels.append(label)
                yield name, data

    images_NCHW = stack_pictures(pictures(), parquet.metadata.num_rows, spec)
    return images_NCHW, np.array(labels, dtype=np.int64)


def encoded(cell: Any) -> bytes | None:
    """The encoded picture in a cell of either layout."""
    return cell["bytes"] if isinstance(cell, dict) else cell


def row_name(file: Path | str, row: int) -> str:
    """How errors name a row."""
    return f"row {row} (counted from 0) of '{file}'"


def column_named(file: Path, schema: Any, wanted: tuple[str, ...]) -> str:
    """The first of the names that the file has; UserError if it has none."""
    for name in wanted:
        if name in schema.names:
            return name
    there = ", ".join(schema.names) or "none"
    raise UserError(f"'{file}' has no column '{wanted[0]}' (or '{wanted[1]}'; it has: {there}); rename the column")


def check_image_type(file: Path, image: Any) -> None:
    """UserError unless a column's field can hold encoded pictures."""
    import pyarrow.types as types

    kind = image.type
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (types.is_binary(kind) or types.is_large_binary(kind)):
        raise UserError(f"'{file}': column '{image.name}' is {image.type}; it must be binary or struct<bytes, path>")


def _check_types(file: Path, image: Any, label: Any) -> None:
    import pyarrow.types as types

    check_image_type(file, image)
    if not types.is_integer(label.type):
        raise UserError(f"'{file}': column '{label.name}' is {label.type}; it must be integers 0, 1, 2, ...")


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn what pyarrow raises on a broken file into a UserError."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError) as error:
        raise UserError(
            f"'{file}' is not a readable Parquet file ({reason(error)}); fetch or write it again"
        ) from error
