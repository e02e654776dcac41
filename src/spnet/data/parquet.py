"""Parquet files in the Hugging Face image layout as a data set: a folder with files for each split, or one file."""

from pathlib import Path

import numpy as np
import torch

from spnet.data.dataset import Dataset, Split
from spnet.data.parquet_file import read_file, row_name
from spnet.data.spec import Spec
from spnet.data.stack import join, same_channels
from spnet.data.statistics import measured_dataset
from spnet.data.subset import held_out_part
from spnet.errors import UserError

TEST_PREFIXES = ("test", "val")  # `test*` before `val*` and `validation*`: what comes second is not read


def load(spec: Spec) -> Dataset:
    """A folder whose file names start with `train` and with `test`, `val` or `validation`; or one file, which is
    divided.

    The division is fixed, stratified and by index: 80 % train, 20 % test. Class names come from the schema metadata,
    else they are "0", "1", ... up to the largest training label.
    """
    assert spec.path is not None
    if spec.path.is_dir():
        train, test, classes = read_folder(spec.path, spec)
    else:
        everything, classes = _read([spec.path], spec)
        train, test = held_out_part(everything, f"'{spec.path}'")
    return measured_dataset(
        f"parquet:{spec.path.resolve().name}", train, test, classes or _numbered(train), named=classes is not None
    )


def read_folder(path: Path, spec: Spec) -> tuple[Split, Split, tuple[str, ...] | None]:
    """(train, test, class names if the files carry them) of a folder of Parquet files."""
    train_files, test_files = files_of_splits(path)
    train, classes = _read(train_files, spec)
    test, test_classes = _read(test_files, spec)
    if classes and test_classes and classes != test_classes:
        raise UserError(f"the train and test files in '{path}' name different classes; write both with the same names")
    return *same_channels(train, test, spec), classes or test_classes


def files_of_splits(path: Path) -> tuple[list[Path], list[Path]]:
    """(training files, test files) of a folder of Parquet files; UserError if either is missing."""
    files = sorted(path.glob("*.parquet"))
    train_files = [file for file in files if file.name.startswith("train")]
    test_files: list[Path] = []
    for prefix in TEST_PREFIXES:
        test_files = test_files or [file for file in files if file.name.startswith(prefix)]
    for files_of, prefixes in ((train_files, "train"), (test_files, "test, val or validation")):
        if not files_of:
            there = ", ".join(file.name for file in files[:5]) or "none"
            raise UserError(
                f"'{path}' has no Parquet file whose name starts with {prefixes} (it has: {there}); "
                "rename the files, or give one file, which is then divided 80 to 20"
            )
    return train_files, test_files


def _read(files: list[Path], spec: Spec) -> tuple[Split, tuple[str, ...] | None]:
    """The rows of all files, in order."""
    parts = [(file, *read_file(file, spec)) for file in files]
    classes = checked_classes([(file, label_N, names) for file, _, label_N, names in parts])
    images = join([(f"'{file}'", images_NCHW) for file, images_NCHW, _, _ in parts], spec)
    images_NCHW = images[0] if len(images) == 1 else np.concatenate(images)
    label_N = np.concatenate([label_N for _, _, label_N, _ in parts])
    return Split(torch.from_numpy(images_NCHW), torch.from_numpy(label_N)), classes


def checked_classes(parts: list[tuple[Path, np.ndarray, tuple[str, ...] | None]]) -> tuple[str, ...] | None:
    """The class names that all of (file, labels (N,), class names) agree on; UserError if they do not, or for a label
    that is no class."""
    first, _, classes = parts[0]
    for file, label_N, names in parts:
        if names != classes:
            raise UserError(f"'{file}' and '{first}' name different classes; write both with the same names")
        end = len(classes) if classes else None
        bad = np.flatnonzero((label_N < 0) | (label_N >= (end or np.inf)))
        if bad.size:
            allowed = f"0 to {end - 1}" if end else "0 or more"
            raise UserError(f"{row_name(file, bad[0])} has label {label_N[bad[0]]}; labels must be {allowed}")
    return classes


def _numbered(train: Split) -> tuple[str, ...]:
    """Names for classes that have none."""
    count = int(train.labels.max()) + 1
    if count > max(2, len(train)):
        raise UserError(
            f"the largest label is {count - 1} but there are only {len(train)} training images; number classes from 0"
        )
    return tuple(str(label) for label in range(count))
