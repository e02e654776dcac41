"""A data set in a few plain `.npz` files of limited size, to take it to a bare machine: numpy is all that reads it.

`NAME-1-of-2.npz` ... each hold an equal share of the training and the test images. Pixels are stored as differences
(from green to the other colours, then along rows and columns), which makes photographs a third smaller than `.npz` does
alone: 60,000 CIFAR pictures take 107 MiB instead of 162.
"""

import math
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from spnet.data.dataset import Dataset, Split
from spnet.data.reason import NO_ARRAYS, reason
from spnet.errors import UserError
from spnet.files import write_atomically

LIMIT = 56 << 20
"""Bytes a file."""
KINDS = ("train", "test")
SAMPLE = 1000
"""Images from which the size of the rest is estimated."""


def parts(folder: Path, name: str) -> list[Path]:
    """The files that hold the data set `name`, in order; none if it is not packed here."""
    found = [path for path in folder.glob(f"{name}-*-of-*.npz") if re.fullmatch(rf"{name}-\d+-of-\d+\.npz", path.name)]
    return sorted(found, key=lambda path: int(path.stem.split("-")[-3]))


def write(dataset: Dataset, folder: Path, limit: int = LIMIT) -> list[Path]:
    """Pack a data set into `folder`, in as many files of at most `limit` bytes as it needs; returns them."""
    if stale := parts(folder, dataset.name):
        raise UserError(f"{stale[0]} is there already: choose another --out, or remove it.")
    splits = {"train": dataset.train, "test": dataset.test}
    total = sum(len(split) for split in splits.values())
    sample = zlib.compress(
        _differences(dataset.train.images[:SAMPLE].numpy()).tobytes(),
        6,
    )
    bytes_each = len(sample) / min(SAMPLE, len(dataset.train))
    count = math.ceil(1.05 * bytes_each * total / limit)
    files = []
    for part in range(count):
        arrays = {}
        for kind, split in splits.items():
            mine = slice(part * len(split) // count, (part + 1) * len(split) // count)
            arrays[f"{kind}_images"] = _differences(split.images[mine].numpy())
            arrays[f"{kind}_labels"] = split.labels[mine].numpy()
        path = folder / f"{dataset.name}-{part + 1}-of-{count}.npz"
        write_atomically(path, lambda temporary, arrays=arrays: _save(temporary, arrays))
        if path.stat().st_size > limit:
            raise RuntimeError(f"{path} is larger than {limit} bytes: its images pack worse than the first {SAMPLE}.")
        files.append(path)
    return files


def read(folder: Path, name: str) -> tuple[Split, Split]:
    """(train, test); UserError if a part is missing or damaged."""
    files = parts(folder, name)
    count = int(files[0].stem.split("-")[-1])
    expected = [f"{name}-{part + 1}-of-{count}.npz" for part in range(count)]
    if [path.name for path in files] != expected:
        raise UserError(f"'{folder}' holds {', '.join(path.name for path in files)}; {name} is {', '.join(expected)}")
    loaded = [_load(path) for path in files]
    if len({arrays[f"{kind}_images"].shape[1:] for arrays in loaded for kind in KINDS}) > 1:
        raise UserError(f"'{folder}': the parts of {name} hold images of several sizes; copy or pack it again")
    splits = []
    for kind in KINDS:
        images_NCHW = np.concatenate([arrays[f"{kind}_images"] for arrays in loaded])
        label_N = np.concatenate([arrays[f"{kind}_labels"] for arrays in loaded])
        splits.append(Split(torch.from_numpy(_pixels(images_NCHW)), torch.from_numpy(label_N)))
    return splits[0], splits[1]


def _differences(images_NCHW: np.ndarray) -> np.ndarray:
    """uint8 -> uint8, modulo 256; `_pixels` takes it back exactly."""
    d_NCHW = images_NCHW.copy()
    if d_NCHW.shape[1] == 3:
        d_NCHW[:, 0] -= images_NCHW[:, 1]
        d_NCHW[:, 2] -= images_NCHW[:, 1]
    d_NCHW[..., 1:] = np.diff(d_NCHW, axis=3)
    d_NCHW[..., 1:, :] = np.diff(d_NCHW, axis=2)
    return d_NCHW


def _pixels(d_NCHW: np.ndarray) -> np.ndarray:
    images_NCHW = d_NCHW.cumsum(axis=2, dtype=np.uint8).cumsum(axis=3, dtype=np.uint8)
    if images_NCHW.shape[1] == 3:
        images_NCHW[:, 0] += images_NCHW[:, 1]
        images_NCHW[:, 2] += images_NCHW[:, 1]
    return images_NCHW


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {f"{kind}_{what}": arrays[f"{kind}_{what}"] for kind in KINDS for what in ("images", "labels")}
        for kind in KINDS:
            images, labels = found[f"{kind}_images"], found[f"{kind}_labels"]
            if (
                images.dtype != np.uint8
                or images.ndim != 4
                or labels.dtype != np.int64
                or labels.shape != images.shape[:1]
            ):
                raise ValueError(f"its {kind} images are no uint8 (N, C, H, W) with N labels")
        return found
    except (*NO_ARRAYS, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"'{path}' cannot be read ({reason(error)}): copy or pack it again") from error
