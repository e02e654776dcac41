"""Photos read while they are needed: the same views whoever reads them, in which batch, remembered or not."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from spnet import UserError, data
from spnet.cli import main
from spnet.data.photos.source import Photos
from spnet.data.photos.views import RATIO, SCALE, centre, random_box, random_part, smaller, stored_side

SIZES = ((40, 60), (64, 48), (33, 33), (50, 90))
"""(height, width) of the photos: mixed, as cameras make them."""


def photo(label: int, k: int) -> Image.Image:
    """Red or green, with a pattern of its own, in a mode of its own."""
    height, width = SIZES[k % len(SIZES)]
    pixels = np.random.default_rng(100 * label + k).integers(0, 90, (height, width, 3), dtype=np.uint8)
    pixels[..., label] += 150
    return Image.fromarray(pixels).convert(("RGB", "RGBA", "CMYK", "RGB")[k % 4])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, count in (("train", 12), ("test", 6)):
        for label, name in enumerate(("red", "green")):
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(count):
                kind = "tiff" if k % 4 == 2 else "png"
                photo(label, k + 20 * (part == "test")).save(tmp_path / part / name / f"{k:02}.{kind}")
    return tmp_path


def loaded(folder: Path, **settings: Any) -> data.Dataset:
    return data.load(f"photos:{folder}?size=28", **settings)


def views(split: data.Source, batch_size: int, seed: int = 3, copies: int = 1) -> torch.Tensor:
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(5))
    batches = split.epoch(order, batch_size, part=(0, 1), copies=copies, augmented=True, seed=seed)
    return torch.cat([images for images, _ in batches])


def test_nothing_is_decoded_before_it_is_asked_for(folder: Path):
    dataset = loaded(folder)
    assert dataset.classes == ("green", "red") and len(dataset.train) == 24 and len(dataset.test) == 12
    assert (dataset.in_channels, dataset.image_size) == (3, (28, 28))
    assert isinstance(dataset.train, Photos) and dataset.train.reader.decoded == 0


def test_the_test_sees_the_centre(folder: Path):
    dataset = loaded(folder)
    images, labels = next(dataset.test.in_order(5))
    assert images.shape == (5, 3, 28, 28) and images.dtype == torch.uint8 and labels.tolist() == [0] * 5
    first = torch.from_numpy(np.asarray(photo(1, 20).convert("RGB")).transpose(2, 0, 1).copy())
    assert torch.equal(images[0], centre(smaller(first, stored_side(28)), 28))
    assert torch.equal(dataset.test.images[:5], images)
    assert all((images[:, 1].float().mean((1, 2)) > images[:, 0].float().mean((1, 2))).tolist())  # they are green


@pytest.mark.parametrize("settings", [{"workers": 3}, {"cache_gb": 1e-3}, {"cache_gb": 2e-5}], ids=str)
def test_views_do_not_depend_on_batches_workers_or_the_cache(folder: Path, settings: dict[str, Any]):
    expected = views(loaded(folder).train, 4)
    split = loaded(folder, **settings).train
    for _ in range(2):  # the second time from memory, where there is room
        assert torch.equal(views(split, 6), expected)
    assert not torch.equal(views(split, 6, seed=4), expected)


def test_what_fits_the_cache_is_decoded_once(folder: Path):
    roomy, none = loaded(folder, cache_gb=1e-3).train, loaded(folder).train
    assert isinstance(roomy, Photos) and isinstance(none, Photos)
    for split, wanted in ((roomy, 24), (none, 72)):
        for seed in range(3):
            views(split, 4, seed=seed)
        assert split.reader.decoded == wanted


def test_parts_and_copies(folder: Path):
    split = loaded(folder).train
    order = torch.arange(24)
    whole = [images for images, _ in split.epoch(order, 6, part=(0, 1), copies=2, augmented=True, seed=1)]
    assert [len(images) for images in whole] == [12] * 4
    one, two = (
        [images for images, _ in split.epoch(order, 6, part=(k, 2), copies=2, augmented=True, seed=1)] for k in (0, 1)
    )
    for together, first, second in zip(whole, one, two, strict=True):
        pairs = together.view(6, 2, 3, 28, 28)
        assert torch.equal(torch.cat([first, second]), together)
        assert not torch.equal(pairs[:, 0], pairs[:, 1])  # two views of a photo differ


def test_random_parts_lie_inside_and_have_the_area_and_ratio_asked_for():
    generator = torch.Generator().manual_seed(0)
    boxes = [random_box(120, 200, generator) for _ in range(500)]
    assert all(0 <= t <= 120 - h and 0 <= x <= 200 - w and h > 0 and w > 0 for t, x, h, w in boxes)
    shares = torch.tensor([h * w / 24_000 for _, _, h, w in boxes])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [RandomResizedCrop.get_params(torch.zeros(3, 120, 200), list(SCALE), list(RATIO)) for _ in range(500)]
    assert abs(shares.mean() - torch.tensor([h * w / 24_000 for _, _, h, w in theirs]).mean()) < 0.03
    assert all(0.7 < w / h < 1.4 for _, _, h, w in boxes)
    assert random_box(10, 400, generator)[2:] == (10, 13)  # nothing else fits: the largest centre part
    assert random_part(torch.zeros(3, 9, 9, dtype=torch.uint8), 28, generator).shape == (3, 28, 28)


def parquet(path: Path, cells: list[bytes], labels: list[int]) -> None:
    table = pa.table({"image": [{"bytes": cell, "path": None} for cell in cells], "label": labels})
    pq.write_table(table.replace_schema_metadata({"class_names": '["red", "green"]'}), path)


def encoded(label: int, k: int) -> bytes:
    buffer = io.BytesIO()
    photo(label, k).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def test_parquet_rows_are_photos_too(tmp_path: Path):
    parquet(tmp_path / "train-1.parquet", [encoded(k % 2, k) for k in range(6)], [k % 2 for k in range(6)])
    parquet(tmp_path / "train-2.parquet", [encoded(1, 9)], [1])
    parquet(tmp_path / "test.parquet", [encoded(k % 2, 30 + k) for k in range(4)], [0, 1, 0, 1])
    dataset = loaded(tmp_path)
    assert dataset.classes == ("red", "green") and (len(dataset.train), len(dataset.test)) == (7, 4)
    assert dataset.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 1]
    last = torch.from_numpy(np.asarray(photo(1, 9).convert("RGB")).transpose(2, 0, 1).copy())
    assert torch.equal(dataset.train.select([6]).images[0], centre(smaller(last, stored_side(28)), 28))


def test_an_unreadable_photo_is_named_counted_and_training_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "train" / "red" / "03.png").write_bytes(b"no picture")
    split = loaded(folder).train
    images = views(split, 4)
    assert len(images) == 24 and len(views(split, 4, seed=9)) == 24
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "03.png" in said and "(1 so far)" in said
    assert len(split.images) == 24  # in a test too, so that each image keeps its place
    assert isinstance(split, Photos)
    (number,) = split.reader.unreadable
    images, labels = zip(*split.in_order(5), strict=True)
    assert torch.equal(torch.cat(images)[number], torch.cat(images)[number + 1])
    assert torch.cat(labels)[number] == split.labels[number + 1]


def test_a_single_photo_that_is_unreadable_is_black(folder: Path):
    (folder / "train" / "red" / "03.png").write_bytes(b"no picture")
    split = loaded(folder).train
    assert len(split.images) == 24
    assert isinstance(split, Photos)
    alone = split.select(list(split.reader.unreadable))
    assert not alone.images.any() and not views(alone, 1).any()


def test_a_training_goes_on_to_its_report_beside_an_unreadable_photo(folder: Path, tmp_path: Path):
    """Watched images, paths given to each image, and the page count on the places of the images."""
    for part in ("train", "test"):
        next((folder / part).rglob("*.png")).write_bytes(b"no picture")
    tiny = ["--backbone", "resnet8", "--epochs", "3", "--batch-size", "8", "--validation", "0", "--hidden", "4"]
    out, page = tmp_path / "run", tmp_path / "page.html"
    assert main(["train", "--data", f"photos:{folder}?size=16", *tiny, "--out", str(out)]) == 0
    assert main(["eval", str(out)]) == 0
    assert main(["report", str(out), "--out", str(page)]) == 0
    assert "Which blocks each class runs" in page.read_text()


def test_more_than_one_percent_stops(folder: Path):
    for name in ("03.png", "04.png"):
        (folder / "train" / "red" / name).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"2 of 24 photos are unreadable, more than 1 %; the last: .*\.png"):
        views(loaded(folder).train, 4)


def test_a_training_on_photos_stopped_and_resumed_ends_in_the_same_weights(folder: Path, tmp_path: Path):
    """With a resume after the first of two epochs, through the command line."""
    base = [
        "train",
        "--data",
        f"photos:{folder}?size=16",
        "--backbone",
        "resnet8",
        "--epochs",
        "2",
        "--batch-size",
        "8",
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*base, "--validation", "0", "--out", str(one)]) == 0
    assert main([*base, "--validation", "0", "--out", str(two), "--time-limit", "0.000001"]) in (0, 2)
    assert main(["train", "--resume", str(two)]) == 0
    weights = [torch.load(run / "state" / "resume.pt", weights_only=True)["net"] for run in (one, two)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert main(["eval", str(one)]) == 0
    assert main(["report", str(one), "--out", str(tmp_path / "page.html")]) == 0
