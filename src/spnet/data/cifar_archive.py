"""CIFAR as its authors publish it, binary or Python version, as an archive or as the folder it unpacks to.

Nothing is unpacked to disk, and pickles are read without running them.
"""

import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from spnet.data.cifar_pickle import unpickle
from spnet.data.dataset import Split
from spnet.data.reason import reason
from spnet.errors import UserError

PIXELS = 3 * 32 * 32
Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 (N, 3, 32, 32), labels int64 (N,)


@dataclass(frozen=True)
class Layout:
    """One published form: its files for each split, the names it goes by, and how one file is read."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    folder: str
    archive: str
    parse: Callable[[bytes, str], Arrays]

    def split(self, files: dict[str, bytes], names: tuple[str, ...]) -> Split:
        parts = [self.parse(files[name], name) for name in names]
        images_NCHW, label_N = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Split(torch.from_numpy(images_NCHW), torch.from_numpy(label_N))


def read(name: str, path: Path) -> tuple[Split, Split]:
    """(train, test) of "cifar10" or "cifar100" in `path`; UserError if neither form is there, or it is damaged."""
    for layout in LAYOUTS[name]:
        wanted = layout.train + layout.test
        for place in (path / layout.folder, path, path / layout.archive):
            files = _members(place, wanted)
            if len(files) == len(wanted):
                return layout.split(files, layout.train), layout.split(files, layout.test)
            if files:
                missing = ", ".join(sorted(set(wanted) - set(files)))
                raise UserError(f"'{place}' lacks {missing}; fetch {name} again")
    raise UserError(
        f"'{path}' holds no {name}: neither Parquet files (train*.parquet, test*.parquet) nor the official archive "
        f"or its files ({', '.join(LAYOUTS[name][0].train[:2])}, ...); check the path"
    )


def _members(place: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The contents of the wanted files that a folder or a tar archive has, by name."""
    try:
        if place.is_dir():
            return {name: (place / name).read_bytes() for name in wanted if (place / name).is_file()}
        if not place.is_file():
            return {}
        files = {}
        with tarfile.open(place) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name in wanted and (opened := archive.extractfile(member)) is not None:
                    files[name] = opened.read()
        return files
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"'{place}' cannot be read ({reason(error)}); fetch it again") from error


def _binary(label_bytes: int) -> Callable[[bytes, str], Arrays]:
    """Rows of `label_bytes` labels (the last one is the fine label) and 3,072 pixels, red, green and blue plane."""

    def parse(data: bytes, name: str) -> Arrays:
        if not data or len(data) % (label_bytes + PIXELS):
            raise UserError(f"'{name}' has {len(data)} bytes, not a multiple of {label_bytes + PIXELS}; fetch it again")
        rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, label_bytes + PIXELS)
        return rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1].astype(np.int64)

    return parse


def _pickled(label_key: str) -> Callable[[bytes, str], Arrays]:
    """A dictionary with `data`, uint8 (N, 3072), and a list of labels."""

    def parse(data: bytes, name: str) -> Arrays:
        batch = unpickle(data, name)
        images, labels = batch.get("data"), batch.get(label_key)
        if not (
            isinstance(images, np.ndarray)
            and images.shape[1:] == (PIXELS,)
            and isinstance(labels, list)
            and len(labels) == len(images)
        ):
            raise UserError(f"'{name}' does not hold 'data' (N, {PIXELS}) and N '{label_key}'; fetch it again")
        if not all(isinstance(label, int) and 0 <= label < 256 for label in labels):
            raise UserError(f"'{name}' has a label that is not a small number; fetch it again")
        return images.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)

    return parse


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
LAYOUTS: dict[str, tuple[Layout, Layout]] = {
    "cifar10": (
        Layout(
            tuple(f"{name}.bin" for name in _BATCHES),
            ("test_batch.bin",),
            "cifar-10-batches-bin",
            "cifar-10-binary.tar.gz",
            _binary(1),
        ),
        Layout(_BATCHES, ("test_batch",), "cifar-10-batches-py", "cifar-10-python.tar.gz", _pickled("labels")),
    ),
    "cifar100": (
        Layout(("train.bin",), ("test.bin",), "cifar-100-binary", "cifar-100-binary.tar.gz", _binary(2)),
        Layout(("train",), ("test",), "cifar-100-python", "cifar-100-python.tar.gz", _pickled("fine_labels")),
    ),
}
