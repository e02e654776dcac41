"""CIFAR-10 and CIFAR-100: 50,000 training and 10,000 test photographs of 32 x 32 pixels (Krizhevsky 2009)."""

from pathlib import Path

import torch

from spnet.data import cifar_archive, packed, parquet
from spnet.data.cifar_classes import CIFAR10, CIFAR100
from spnet.data.dataset import Augmentation, Dataset, Split
from spnet.data.download import download, ways_out
from spnet.data.locate import find
from spnet.data.match import order
from spnet.data.spec import Spec
from spnet.errors import UserError
from spnet.terminal import say

CLASSES = {"cifar10": CIFAR10, "cifar100": CIFAR100}
# As the papers write them, for both sets. The deviation is the mean of each image's own, not that of all pixels
# (0.247).
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def load(spec: Spec, may_download: bool = True) -> Dataset:
    """The official split, from `spec.path` or where `find` finds it, else after one attempt to download it, if allowed.

    The path is a folder of Parquet files (Hugging Face layout), or of parts that `spnet.data.packed` wrote, or the
    official archive (binary or Python version), or the folder it unpacks to, or a folder that contains either.
    """
    path = spec.path or find(spec.name, tuple(CLASSES))
    if path is None:
        if not may_download:
            raise UserError(f"{spec.name} is not on this machine; {ways_out(spec.name)}")
        path = download(spec.name)
    train, test = _read(spec, path)
    return Dataset(spec.name, train, test, CLASSES[spec.name], MEAN, STD, Augmentation(pad=4, flip=True))


def _read(spec: Spec, path: Path) -> tuple[Split, Split]:
    if path.is_file() and path.suffix == ".parquet":
        raise UserError(f"'{path}' is one file; give {spec.name}: the folder that holds the train and the test files")
    if packed.parts(path, spec.name):
        return packed.read(path, spec.name)
    if not (path.is_dir() and any(path.glob("*.parquet"))):
        return cifar_archive.read(spec.name, path)
    train, test, names = parquet.read_folder(path, spec)
    wanted = CLASSES[spec.name]
    count, shape = len(wanted), tuple(train.images.shape[1:])
    if shape != (3, 32, 32) or (names and len(names) != count):
        channels, height, width = shape
        raise UserError(
            f"'{path}' is not {spec.name}: its images are {width}x{height} with {channels} channels"
            f"{f' in {len(names)} classes' if names else ''}; use parquet:{path}"
        )
    return _in_order(train, test, names or wanted, wanted, spec.name)


def _in_order(
    train: Split, test: Split, names: tuple[str, ...], wanted: tuple[str, ...], data: str
) -> tuple[Split, Split]:
    """Labels as the authors number them. Copies in circulation misspell a name: those are taken as they are."""
    places = order(names, wanted)
    if places is None:
        own, theirs = next((own, theirs) for own, theirs in zip(names, wanted, strict=True) if own != theirs)
        say(f"data '{data}': class '{own}' stands where '{theirs}' is expected; labels are taken by number")
        return train, test
    place_K = torch.tensor(places)
    return Split(train.images, place_K[train.labels]), Split(test.images, place_K[test.labels])
