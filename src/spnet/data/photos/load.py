"""`photos:PATH?size=N`: photos of any size in class folders, or in Parquet files, read while they are needed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from spnet.data.dataset import Augmentation, Dataset
from spnet.data.folder import listed_splits
from spnet.data.parquet import checked_classes, files_of_splits
from spnet.data.parquet_file import encoded_columns
from spnet.data.photos.items import Files, Items, Rows
from spnet.data.photos.reader import Reader
from spnet.data.photos.source import Photos
from spnet.data.spec import Spec
from spnet.data.subset import held_out_part

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet: what photographs are normalised by in this field, unless the network brings its own."""

Make = Callable[[Items, np.ndarray], Photos]
Found = tuple[Photos, Photos | None, tuple[str, ...] | None]
"""(train, test where there is one, class names where there are any)."""


def load(spec: Spec, *, workers: int = 1, cache_gb: float = 0.0) -> Dataset:
    """Nothing is decoded yet. Layouts as of `folder` and of `parquet`; what is not divided is divided 80 to 20.

    Args:
        spec: `size` is the side that the network sees, 224 when left out.
        workers: threads that decode.
        cache_gb: gigabytes of decoded photos that each split may keep in memory.

    Raises:
        UserError: no class folders and no Parquet files, or what `folder` and `parquet` refuse.
    """
    assert spec.path is not None
    size = spec.size or SIZE

    def make(items: Items, labels: np.ndarray) -> Photos:
        reader = Reader(items, size, int(cache_gb * 1e9))
        return Photos(reader, torch.arange(len(items)), torch.as_tensor(labels, dtype=torch.int64), workers)

    parquet = spec.path.suffix == ".parquet" or any(spec.path.glob("*.parquet"))
    train, test, classes = (_rows if parquet else _files)(spec.path, make)
    if test is None:
        train, test = held_out_part(train, f"'{spec.path}'")
    return Dataset(
        name=f"photos:{spec.path.resolve().name}",
        train=train,
        test=test,
        classes=classes or tuple(map(str, range(int(train.labels.max()) + 1))),
        mean=MEAN,
        std=STD,
        augmentation=Augmentation(pad=0, flip=True),  # of photos in memory; training draws views of its own
        named=classes is not None,
    )


def _files(path: Path, make: Make) -> Found:
    classes, *splits = listed_splits(path)
    train, test = (
        None if files is None else make(Files([file for _, file in files]), np.array([label for label, _ in files]))
        for files in splits
    )
    assert train is not None
    return train, test, classes


def _rows(path: Path, make: Make) -> Found:
    splits = files_of_splits(path) if path.is_dir() else ([path], [])
    parts = {file: encoded_columns(file) for files in splits for file in files}
    classes = checked_classes([(file, labels, names) for file, (_, labels, names) in parts.items()])

    def split(files: list[Path]) -> Photos:
        rows = Rows([(str(file), parts[file][0]) for file in files])
        return make(rows, np.concatenate([parts[file][1] for file in files]))

    return split(splits[0]), split(splits[1]) if splits[1] else None, classes
