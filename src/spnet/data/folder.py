"""A folder of pictures, one subfolder a class: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/* alone."""

from pathlib import Path

import torch

from spnet.data.dataset import Dataset, Split
from spnet.data.spec import Spec
from spnet.data.stack import same_channels, stack_pictures
from spnet.data.statistics import measured_dataset
from spnet.data.subset import held_out_part
from spnet.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
TEST_FOLDERS = ("test", "val", "validation")  # the first that is there is the test set


def load(spec: Spec) -> Dataset:
    """Classes are the subfolders with their names sorted; pictures are taken in order of file name.

    Without `train` and `test` folders the images are divided, fixed and stratified by index: 80 % train, 20 % test.
    UserError for an empty folder or class, a test class unknown in training, pictures of different sizes (mended by
    `folder:PATH?size=N`), or one that does not decode.
    """
    path = spec.path
    assert path is not None
    if not path.is_dir():
        raise UserError(f"'{path}' is a file; folder:PATH needs a folder with one subfolder a class")
    test_path = next((path / name for name in TEST_FOLDERS if (path / name).is_dir()), None)
    if test_path is not None and (path / "train").is_dir():
        classes = _classes(path / "train")
        train, test = same_channels(_read(path / "train", classes, spec), _read(test_path, classes, spec), spec)
    elif test_path is not None or (path / "train").is_dir():
        lacking = "'train'" if test_path is not None else "'test', 'val' or 'validation'"
        raise UserError(f"'{path}' has no folder {lacking}; add it, or put the class folders directly in '{path}'")
    else:
        classes = _classes(path)
        train, test = held_out_part(_read(path, classes, spec), f"'{path}'")
    return measured_dataset(f"folder:{path.resolve().name}", train, test, classes)


def _classes(path: Path) -> tuple[str, ...]:
    """The class folders of a training folder, each with at least one picture."""
    classes = tuple(sorted(child.name for child in path.iterdir() if child.is_dir() and child.name[0] != "."))
    if len(classes) < 2:
        found = f"only '{classes[0]}'" if classes else "none"
        raise UserError(f"'{path}' needs at least two class folders with images, but has {found}")
    for name in classes:
        if not _pictures(path / name):
            raise UserError(f"class folder '{path / name}' has no images; add some or remove it")
    return classes


def _read(path: Path, classes: tuple[str, ...], spec: Spec) -> Split:
    """All pictures under `path`, numbered by their class's place in `classes`."""
    unknown = sorted(
        child.name for child in path.iterdir() if child.is_dir() and child.name[0] != "." and child.name not in classes
    )
    if unknown:
        raise UserError(f"'{path}' has a class '{unknown[0]}' that is not in training; add it there or remove it here")
    files = [(label, file) for label, name in enumerate(classes) for file in _pictures(path / name)]
    if not files:
        raise UserError(f"'{path}' has no images; add some, in one folder a class")
    images_NCHW = stack_pictures(((f"'{file}'", file) for _, file in files), len(files), spec)
    return Split(torch.from_numpy(images_NCHW), torch.tensor([label for label, _ in files]))


def _pictures(folder: Path) -> list[Path]:
    """Image files of one class, sorted by name; hidden and other files are passed over."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
