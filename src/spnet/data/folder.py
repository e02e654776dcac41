"""A folder of pictures, one subfolder a class: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/* alone."""

from pathlib import Path

import torch

from spnet.data.dataset import Dataset, Split
from spnet.data.listing import LeftOut, look, pictures_in
from spnet.data.spec import Spec
from spnet.data.stack import same_channels, stack_pictures
from spnet.data.statistics import measured_dataset
from spnet.data.subset import held_out_part
from spnet.errors import UserError

TEST_FOLDERS = ("test", "val", "validation")  # the first that is there is the test set


Labelled = list[tuple[int, Path]]
"""(class number, picture) of each image, class by class."""


def load(spec: Spec) -> Dataset:
    """Classes are the subfolders with their names sorted; pictures are taken in order of file name, whatever format
    they have (`spnet.data.formats`). What lies among them and is no picture is counted in one line on stderr.

    Without `train` and `test` folders the images are divided, fixed and stratified by index: 80 % train, 20 % test.
    UserError for an empty folder or class, a test class unknown in training, pictures of different sizes (mended by
    `folder:PATH?size=N`), or some that do not decode.
    """
    assert spec.path is not None
    classes, train_files, test_files = listed_splits(spec.path)
    train = _read(train_files, spec)
    if test_files is None:
        train, test = held_out_part(train, f"'{spec.path}'")
    else:
        train, test = same_channels(train, _read(test_files, spec), spec)
    return measured_dataset(f"folder:{spec.path.resolve().name}", train, test, classes)


def listed_splits(path: Path) -> tuple[tuple[str, ...], Labelled, Labelled | None]:
    """(class names, training pictures, test pictures or None where the folder is not divided). Nothing is opened.
    UserError as of `load`."""
    if not path.is_dir():
        what = "a file" if path.is_file() else "no folder"
        raise UserError(f"'{path}' is {what}; folder:PATH needs a folder with one subfolder a class")
    left_out = LeftOut()
    test_path = next((path / name for name in TEST_FOLDERS if (path / name).is_dir()), None)
    divided = (path / "train").is_dir()
    if divided != (test_path is not None):
        lacking = "'test', 'val' or 'validation'" if divided else "'train'"
        raise UserError(f"'{path}' has no folder {lacking}; add it, or put the class folders directly in '{path}'")
    train_path = path / "train" if divided else path
    listed = _listed(train_path, left_out)
    _check_classes(train_path, listed)
    classes = tuple(listed)
    test = _numbered(test_path, classes, _listed(test_path, left_out)) if test_path is not None else None
    left_out.say(path)
    return classes, _numbered(train_path, classes, listed), test


def _listed(path: Path, left_out: LeftOut) -> dict[str, list[Path]]:
    """Class -> its pictures, both sorted by name."""
    outside, classes = look(path, left_out)
    left_out.outside += len(outside)
    return {folder.name: pictures_in(folder, left_out) for folder in classes}


def _check_classes(path: Path, listed: dict[str, list[Path]]) -> None:
    """UserError unless a training folder has two classes, each with at least one picture."""
    if len(listed) < 2:
        found = f"only '{next(iter(listed))}'" if listed else "none"
        raise UserError(f"'{path}' needs at least two class folders with images, but has {found}")
    for name, files in listed.items():
        if not files:
            raise UserError(f"class folder '{path / name}' has no images; add some or remove it")


def _numbered(path: Path, classes: tuple[str, ...], listed: dict[str, list[Path]]) -> Labelled:
    """The pictures under `path`, numbered by their class's place in `classes`."""
    if unknown := [name for name in listed if name not in classes]:
        raise UserError(f"'{path}' has a class '{unknown[0]}' that is not in training; add it there or remove it here")
    files = [(label, file) for label, name in enumerate(classes) for file in listed.get(name, ())]
    if not files:
        raise UserError(f"'{path}' has no images; add some, in one folder a class")
    return files


def _read(files: Labelled, spec: Spec) -> Split:
    images_NCHW = stack_pictures(((f"'{file}'", file) for _, file in files), len(files), spec)
    return Split(torch.from_numpy(images_NCHW), torch.tensor([label for label, _ in files]))
