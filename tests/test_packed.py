"""A data set in files of limited size: the same pixels come back, through `cifar10:FOLDER`, and damage is explained."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from spnet import UserError
from spnet.data import Augmentation, Dataset, Split, load, packed
from spnet.data.cifar_classes import CIFAR10


def photographs(count: int, seed: int = 0) -> Split:
    """Smooth colour images with a little noise, labels 0 to 9 in turn."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear") * 240
    noise = torch.randint(0, 12, smooth.shape, generator=generator)
    return Split((smooth + noise).to(torch.uint8), torch.arange(count) % 10)


@pytest.fixture
def dataset() -> Dataset:
    return Dataset("cifar10", photographs(95), photographs(31, 1), CIFAR10, (0.5,) * 3, (0.2,) * 3, Augmentation())


def test_parts_hold_the_same_pixels_in_order(dataset: Dataset, tmp_path: Path):
    limit = 60_000
    files = packed.write(dataset, tmp_path, limit)
    assert len(files) > 2 and all(path.stat().st_size <= limit for path in files)
    assert packed.parts(tmp_path, "cifar10") == files and packed.parts(tmp_path, "cifar100") == []
    again = load(f"cifar10:{tmp_path}")
    for ours, theirs in ((again.train, dataset.train), (again.test, dataset.test)):
        assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)
    assert again.classes == CIFAR10 and again.augmentation.flip


def test_differences_are_undone_for_any_bytes():
    for channels in (1, 3):
        extremes = np.random.default_rng(0).choice(np.array([0, 1, 127, 255], np.uint8), (4, channels, 5, 7))
        assert np.array_equal(packed._pixels(packed._differences(extremes)), extremes)


def test_photographs_get_smaller_than_without_differences(dataset: Dataset, tmp_path: Path):
    (path,) = packed.write(dataset, tmp_path)
    np.savez_compressed(tmp_path / "plain.npz", dataset.train.images.numpy(), dataset.test.images.numpy())
    assert path.stat().st_size < 0.85 * (tmp_path / "plain.npz").stat().st_size


def test_missing_and_damaged_parts_are_explained(dataset: Dataset, tmp_path: Path):
    files = packed.write(dataset, tmp_path, 60_000)
    with pytest.raises(UserError, match=r"is there already"):
        packed.write(dataset, tmp_path)
    last = files[-1].read_bytes()
    files[-1].write_bytes(last[:200])
    with pytest.raises(UserError, match=rf"{files[-1].name}' cannot be read"):
        load(f"cifar10:{tmp_path}")
    with np.load(files[0]) as arrays, zipfile.ZipFile(files[-1], "w") as archive:
        for key in arrays.files:
            buffer = io.BytesIO()
            np.save(buffer, arrays[key])
            archive.writestr(f"{key}.npy", buffer.getvalue().replace(b"}", b"(", 1))  # a header that never ends
    with pytest.raises(UserError, match=rf"{files[-1].name}' cannot be read"):
        load(f"cifar10:{tmp_path}")
    files[-1].unlink()
    with pytest.raises(UserError, match=rf"cifar10 is cifar10-1-of-\d.npz, .*{files[-1].name}"):
        load(f"cifar10:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("train_images", lambda x: x - 0.5),
        ("train_images", lambda x: x[None]),
        ("test_images", lambda x: x[:3]),
        ("test_labels", lambda x: x[None]),
        ("test_labels", lambda x: x.astype(np.int32)),
        ("train_images", lambda x: x[..., :8]),
    ],
)
def test_arrays_of_another_kind_are_explained(name: str, change, dataset: Dataset, tmp_path: Path):
    (file,) = packed.write(dataset, tmp_path)
    with np.load(file) as arrays:
        np.savez(file, **{key: change(value) if key == name else value for key, value in arrays.items()})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"cannot be read .* with N labels|images of several sizes"):
        load(f"cifar10:{tmp_path}")
