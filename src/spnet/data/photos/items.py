"""Encoded photos and their labels, by number: files in class folders, or rows of Parquet files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from spnet.data.parquet_file import encoded, row_name


class Items(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[str, Path | bytes]:
        """(how errors name it, the file or its bytes)."""
        ...


class Files:
    """Args:
    paths: opened when asked for, never before.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Path]:
        return f"'{self.paths[index]}'", self.paths[index]


class Rows:
    """Rows of Parquet files: the encoded bytes lie in memory, or in the page cache where a file can be mapped.

    Args:
        columns: one a file: (the file's name, its image column, binary or struct<bytes, ...>).
    """

    def __init__(self, columns: Sequence[tuple[str, Any]]) -> None:
        self.columns = list(columns)
        self.starts = np.cumsum([0, *(len(column) for _, column in self.columns)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> tuple[str, bytes]:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        file, column = self.columns[part]
        row = index - int(self.starts[part])
        cell = column[row].as_py()
        return row_name(file, row), encoded(cell) or b""
