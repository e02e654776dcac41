"""Loading data: what is read, what is refused and in which words, and that every division is fixed."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from spnet.data import Split, balanced_subset, download, load, names, read_picture, validation_part
from spnet.errors import UserError

random = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache, sees the user's data or uses the network."""
    monkeypatch.setenv("SPNET_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("SPNET_DATA", raising=False)

    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(download.urllib.request, "urlopen", no_network)


def pixels(width: int = 8, height: int = 8, grey: bool = False) -> np.ndarray:
    return random.integers(0, 256, (height, width) if grey else (height, width, 3), dtype=np.uint8)


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def refused(spec: str, *words: str) -> str:
    """Loading fails with a one-line UserError that contains the words."""
    with pytest.raises(UserError) as caught:
        load(spec)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


def split_of(labels: list[int]) -> Split:
    """Image i is filled with i."""
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return Split(images, torch.tensor(labels, dtype=torch.int64))


# ---------------------------------------------------------------------------------------------------- the public door


def test_importing_the_package_loads_nothing_slow_and_makes_nothing():
    code = (
        "import sys, spnet.data; slow = {'PIL', 'sklearn', 'pyarrow', 'matplotlib', 'torchvision'} & set(sys.modules); "
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not any(Path(os.environ["SPNET_CACHE"]).iterdir())


def test_names_lists_what_load_knows():
    assert [name for name, _ in names()] == ["digits", "cifar10", "cifar100", "folder", "photos", "parquet"]
    assert all(text and "\n" not in text for _, text in names())


def test_wrong_specifications_are_explained(tmp_path):
    refused("cifr10", "unknown data 'cifr10'", "Did you mean 'cifar10'?")
    refused("", "unknown data")
    refused("folder", "folder:PATH")
    refused("parquet:", "parquet:PATH")
    refused("digits:/tmp", "takes no path")
    refused(f"folder:{tmp_path}/nowhere", "there is no file or folder")
    refused(f"folder:{tmp_path}?size=big", "'big'")
    refused(f"folder:{tmp_path}?size=0", "1 to 4096")
    refused(f"folder:{tmp_path}?colour=3", "unknown option 'colour'")
    refused(f"cifar10:{tmp_path}?size=8", "has no options")
    refused("digits?size=8", "has no options")


def test_digits_are_split_once_and_for_all():
    data = load("digits")
    assert (len(data.train), len(data.test)) == (1347, 450)
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 1, (8, 8))
    assert data.train.images.max() == 255 and data.train.images.min() == 0
    assert (data.augmentation.pad, data.augmentation.flip) == (1, False)
    whole = data.train.labels.bincount() + data.test.labels.bincount()
    assert (data.test.labels.bincount() - whole * 450 / 1797).abs().max() < 1  # stratified
    grey = data.train.images.double() / 255
    assert data.mean == pytest.approx([grey.mean().item()]) and data.std == pytest.approx([grey.std().item()], rel=1e-4)
    torch.manual_seed(7)
    print_of = hashlib.sha256(load("digits").test.images.numpy().tobytes()).hexdigest()
    assert print_of == hashlib.sha256(data.test.images.numpy().tobytes()).hexdigest()
    assert print_of.startswith("0887b075f3188123"), "the fixed split has changed: every number on digits is void"


# --------------------------------------------------------------------------------------------------------- fixed parts


def test_a_balanced_subset_takes_the_first_of_each_class():
    split = split_of([0, 0, 0, 1, 1, 2, 2, 2, 0, 1, 2])
    part = balanced_subset(split, 7)
    assert part.labels.bincount().tolist() == [3, 2, 2]
    assert part.images.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert balanced_subset(split, 3).images.flatten().tolist() == [0, 3, 5]


def test_impossible_subsets_are_explained():
    split = split_of([0, 0, 0, 0, 1, 1])
    with pytest.raises(UserError, match="choose 1 to 6"):
        balanced_subset(split, 7)
    with pytest.raises(UserError, match="choose 1 to 6"):
        balanced_subset(split, 0)
    with pytest.raises(UserError, match="needs 3 of class 1, which has 2; choose at most 4"):
        balanced_subset(split, 6)


def test_a_validation_part_is_stratified_disjoint_and_fixed():
    split = split_of([0] * 40 + [1] * 20 + [2] * 10)
    train, validation = validation_part(split, 0.1)
    assert validation.labels.bincount().tolist() == [4, 2, 1] and train.labels.bincount().tolist() == [36, 18, 9]
    together = train.images.flatten().tolist() + validation.images.flatten().tolist()
    assert sorted(together) == list(range(70))
    torch.manual_seed(5)
    assert torch.equal(validation_part(split, 0.1)[1].images, validation.images)


def test_a_class_never_leaves_training():
    train, validation = validation_part(split_of([0, 1, 2, 2, 2, 2]), 0.5)
    assert train.labels.bincount().tolist() == [1, 1, 1] and len(validation) == 3
    for share, words in ((0.9, "each of 2 classes keeps one"), (0.01, "larger share"), (1, "between 0 and 1")):
        with pytest.raises(UserError, match=words):
            validation_part(split_of([0, 0, 1, 1]), share)


# -------------------------------------------------------------------------------------------------------------- Parquet


def write_parquet(
    file: Path, images: list, labels: list, names: list[str] | None = None, plain=False, key="class_names"
):
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = images if plain else [None if data is None else {"bytes": data, "path": None} for data in images]
    table = pa.table({"image": pa.array(cells, kind), "label": pa.array(labels)})
    if names:
        value = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        value = {"label": names} if key == "class_names" else value
        table = table.replace_schema_metadata({key: json.dumps(value)})
    pq.write_table(table, file)
    return file


@pytest.mark.parametrize("key", ["huggingface", "class_names"])
def test_parquet_folder(tmp_path, key):
    shown = [pixels() for _ in range(6)]
    kinds = ["WEBP", "PNG", "PNG", "WEBP", "PNG", "WEBP"]
    data = [encoded(array, kind) for array, kind in zip(shown, kinds, strict=True)]
    write_parquet(tmp_path / "train-0.parquet", data[:3], [0, 1, 0], ["cat", "dog"], key=key)
    write_parquet(tmp_path / "train-1.parquet", data[3:5], [1, 1], ["cat", "dog"], key=key)
    write_parquet(tmp_path / "validation.parquet", data[5:], [1], ["cat", "dog"], key=key)
    for _ in range(2):  # decoded, then from the cache
        loaded = load(f"parquet:{tmp_path}")
        assert loaded.classes == ("cat", "dog") and loaded.train.labels.tolist() == [0, 1, 0, 1, 1]
        assert np.array_equal(loaded.train.images.permute(0, 2, 3, 1).numpy(), np.stack(shown[:5]))
        assert np.array_equal(loaded.test.images[0].permute(1, 2, 0).numpy(), shown[5])
        assert (loaded.augmentation.pad, loaded.augmentation.flip) == (1, True)


def test_parquet_cache_is_used_renewed_and_never_in_the_way(tmp_path, monkeypatch):
    file = tmp_path / "all.parquet"
    cache = Path(os.environ["SPNET_CACHE"]) / "decoded"
    write_parquet(file, [encoded(pixels()) for _ in range(10)], [0, 1] * 5)
    first = load(f"parquet:{file}")
    (images_file,) = cache.glob("*/images.npy")
    images = np.load(images_file)
    np.save(images_file, np.zeros_like(images))
    assert load(f"parquet:{file}").train.images.max() == 0  # it is read
    images_file.write_bytes(b"torn")
    assert torch.equal(load(f"parquet:{file}").train.images, first.train.images)  # torn: made anew
    write_parquet(file, [encoded(pixels()) for _ in range(10)], [0, 1] * 5)
    assert not torch.equal(load(f"parquet:{file}").train.images, first.train.images)  # the file has changed
    assert not list(cache.glob("*/*.part"))
    monkeypatch.setenv("SPNET_CACHE", str(file))  # a folder cannot be made there
    assert len(load(f"parquet:{file}").train) == 8


def test_single_parquet_file_is_divided_by_class(tmp_path):
    file = write_parquet(
        tmp_path / "all.parquet", [encoded(pixels(grey=True)) for _ in range(20)], [0] * 10 + [1] * 10, plain=True
    )
    data = load(f"parquet:{file}")
    assert data.train.labels.bincount().tolist() == [8, 8] and data.test.labels.bincount().tolist() == [2, 2]
    assert data.in_channels == 1 and data.classes == ("0", "1") and not data.augmentation.flip


def test_grey_stays_grey_only_if_all_are_grey(tmp_path):
    write_parquet(tmp_path / "train.parquet", [encoded(pixels(grey=True)) for _ in range(2)], [0, 1])
    write_parquet(tmp_path / "test.parquet", [encoded(pixels())], [0])
    data = load(f"parquet:{tmp_path}")
    assert data.in_channels == 3 and torch.equal(data.train.images[:, 0], data.train.images[:, 2])


def test_hugging_face_column_names(tmp_path):
    cells = [{"bytes": encoded(pixels()), "path": None} for _ in range(10)]
    labels = [0, 1] * 5
    pq.write_table(pa.table({"img": cells, "fine_label": labels, "coarse_label": labels}), tmp_path / "a.parquet")
    assert load(f"parquet:{tmp_path}/a.parquet").num_classes == 2


def test_broken_parquet_is_explained(tmp_path):
    good = [encoded(pixels()) for _ in range(10)]
    labels = [0, 1] * 5

    def case(images, labels, **more):
        return f"parquet:{write_parquet(tmp_path / 'all.parquet', images, labels, **more)}"

    whole = write_parquet(tmp_path / "whole.parquet", good, labels).read_bytes()
    (tmp_path / "torn.parquet").write_bytes(whole[: len(whole) // 2])
    refused(f"parquet:{tmp_path}/torn.parquet", "torn.parquet", "not a readable Parquet file")
    middle = len(whole) // 3
    (tmp_path / "bad.parquet").write_bytes(whole[:middle] + bytes(200) + whole[middle + 200 :])
    refused(f"parquet:{tmp_path}/bad.parquet", "bad.parquet")
    (tmp_path / "empty.parquet").write_bytes(b"")
    refused(f"parquet:{tmp_path}/empty.parquet", "not a readable Parquet file")
    refused(case(pa.array([], pa.binary()).to_pylist(), pa.array([], pa.int64())), "has no rows")
    refused(case([*good[:7], good[7][:60], *good[8:]], labels), "row 7", "all.parquet", "not a readable image")
    refused(case([*good[:9], b"text"], labels), "row 9", "not one of JPEG, PNG")
    refused(case([*good[:9], None], labels), "row 9", "no image bytes")
    refused(case(good, [0, 1, None, *labels[3:]]), "row 2", "no valid label")
    refused(case(good, [0, 1, -1, *labels[3:]]), "row 2", "label -1", "0 or more")
    refused(case(good, [0, 1, 0, 2, *labels[4:]], names=["a", "b"]), "row 3", "label 2", "0 to 1")
    refused(case(good, [0, 10**9] * 5), "number classes from 0")
    refused(case(good, [0.0, 1.0] * 5), "must be integers")
    refused(case(good, [0] * 10), "one class")
    refused(case(good[:1], [0]), "at least two images")
    odd = refused(case([*good[:4], encoded(pixels(9, 6)), *good[5:]], labels), "row 4", "8x8", "9x6", "?size=8")
    mended = odd.split("'")[-2]
    assert load(mended).image_size == (8, 8)
    pq.write_table(pa.table({"picture": good, "label": labels}), tmp_path / "column.parquet")
    refused(f"parquet:{tmp_path}/column.parquet", "no column 'image'", "picture, label")
    pq.write_table(pa.table({"image": good, "target": labels}), tmp_path / "column.parquet")
    refused(f"parquet:{tmp_path}/column.parquet", "no column 'label'")
    pq.write_table(pa.table({"image": labels, "label": labels}), tmp_path / "column.parquet")
    refused(f"parquet:{tmp_path}/column.parquet", "must be binary")


def test_parquet_folders_that_do_not_fit_are_explained(tmp_path):
    refused(f"parquet:{tmp_path}", "starts with train", "it has: none")
    write_parquet(tmp_path / "train.parquet", [encoded(pixels())] * 2, [0, 1], ["a", "b"])
    refused(f"parquet:{tmp_path}", "test, val or validation", "train.parquet")
    test = write_parquet(tmp_path / "test.parquet", [encoded(pixels())], [0], ["b", "a"])
    refused(f"parquet:{tmp_path}", "different classes")
    write_parquet(test, [encoded(pixels(4, 4))], [0], ["a", "b"])
    refused(f"parquet:{tmp_path}", "8x8", "4x4")
    assert load(f"parquet:{tmp_path}?size=4").image_size == (4, 4)


def test_a_test_label_unknown_in_training_is_refused(tmp_path):
    write_parquet(tmp_path / "train.parquet", [encoded(pixels())] * 2, [0, 1])
    write_parquet(tmp_path / "test.parquet", [encoded(pixels())], [5])
    refused(f"parquet:{tmp_path}", "test labels run from 5 to 5", "0 to 1")


# --------------------------------------------------------------------------------------------------------------- folder


def write_folder(root: Path, classes: dict[str, int], width: int = 8, height: int = 8, grey: bool = False) -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(pixels(width, height, grey)).save(root / name / f"{i}.png")
    return root


def test_folder_with_train_and_test(tmp_path):
    write_folder(tmp_path / "train", {"cat": 2, "ant": 1})
    write_folder(tmp_path / "val", {"cat": 1})
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".hidden").mkdir()
    data = load(f"folder:{tmp_path}")
    assert data.classes == ("ant", "cat")
    assert data.train.labels.tolist() == [0, 1, 1] and data.test.labels.tolist() == [1]
    stored = np.array(Image.open(tmp_path / "train" / "cat" / "1.png"))
    assert np.array_equal(data.train.images[2].permute(1, 2, 0).numpy(), stored)


def test_folder_of_classes_is_divided(tmp_path):
    data = load(f"folder:{write_folder(tmp_path, {'a': 10, 'b': 5}, grey=True)}")
    assert data.train.labels.bincount().tolist() == [8, 4] and data.test.labels.bincount().tolist() == [2, 1]
    assert data.in_channels == 1
    again = load(f"folder:{tmp_path}")
    assert torch.equal(again.test.images, data.test.images)


def test_broken_folders_are_explained(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(f"folder:{tmp_path}/empty", "at least two class folders", "none")
    refused(f"folder:{write_folder(tmp_path / 'one', {'cat': 3})}", "only 'cat'")
    refused(f"folder:{write_folder(tmp_path / 'hollow', {'cat': 3, 'dog': 0})}", "dog", "no images")
    refused(f"folder:{write_folder(tmp_path / 'single', {'cat': 3, 'dog': 1})}", "at least two images")
    write_folder(tmp_path / "half" / "train", {"cat": 2, "dog": 2})
    refused(f"folder:{tmp_path}/half", "'test', 'val' or 'validation'")
    write_folder(tmp_path / "half" / "test", {"cow": 1})
    refused(f"folder:{tmp_path}/half", "class 'cow' that is not in training")
    write_folder(tmp_path / "void" / "train", {"cat": 2, "dog": 2})
    (tmp_path / "void" / "test").mkdir()
    refused(f"folder:{tmp_path}/void", "has no images")
    file = tmp_path / "one" / "cat" / "0.png"
    refused(f"folder:{file}", "is a file")
    torn = write_folder(tmp_path / "torn", {"cat": 5, "dog": 5}) / "dog" / "3.png"
    torn.write_bytes(torn.read_bytes()[:100])
    refused(f"folder:{tmp_path}/torn", str(torn), "truncated")
    (torn.parent / "4.png").write_bytes(b"text")
    message = refused(f"folder:{tmp_path}/torn", "2 of 10 images are not readable; the first", str(torn), "truncated")
    assert "4.png" not in message


def test_folder_of_unequal_sizes_names_the_remedy(tmp_path):
    write_folder(tmp_path, {"a": 3}, 12, 6)
    write_folder(tmp_path, {"b": 3}, 8, 10)
    message = refused(f"folder:{tmp_path}", "12x6", "8x10", "?size=6")
    data = load(message.split("'")[-2])
    assert data.image_size == (6, 6)
    middle = np.array(Image.open(tmp_path / "a" / "0.png"))[:, 3:9]  # its shorter side fits: nothing but cut
    assert np.array_equal(data.train.images[0].permute(1, 2, 0).numpy(), middle)


# ---------------------------------------------------------------------------------------------------------------- CIFAR


def cifar_rows(count: int, label_bytes: int = 1) -> np.ndarray:
    rows = random.integers(0, 256, (count, label_bytes + 3072), dtype=np.uint8)
    rows[:, :label_bytes] = np.arange(count)[:, None] % 10
    return rows


def cifar10_files(kind: str) -> tuple[dict[str, bytes], np.ndarray]:
    """The six files of a tiny CIFAR-10, and all rows (label first) in order, the last two being the test set."""
    rows = cifar_rows(12)
    batches = dict(zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], np.split(rows, 6), strict=True))
    if kind == "binary":
        return {f"{name}.bin": part.tobytes() for name, part in batches.items()}, rows
    protocol = 2 if kind == "python" else 5
    return {
        name: pickle.dumps({b"data": part[:, 1:].copy(), b"labels": part[:, 0].tolist()}, protocol=protocol)
        for name, part in batches.items()
    }, rows


def write_archive(file: Path, files: dict[str, bytes], folder: str = "inner") -> Path:
    with tarfile.open(file, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", ["binary", "python", "python5"])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_as_published(tmp_path, kind, packed):
    files, rows = cifar10_files(kind)
    path = write_archive(tmp_path / "c.tar.gz", files) if packed else write_files(tmp_path / "c", files)
    data = load(f"cifar10:{path}")
    assert (len(data.train), len(data.test), data.num_classes) == (10, 2, 10)
    assert data.train.labels.tolist() == rows[:10, 0].tolist() and data.classes[9] == "truck"
    assert np.array_equal(data.train.images.numpy(), rows[:10, 1:].reshape(-1, 3, 32, 32))
    assert data.mean == (0.4914, 0.4822, 0.4465) and data.augmentation.pad == 4 and data.augmentation.flip


def test_cifar100_reads_fine_labels(tmp_path):
    train, test = cifar_rows(4, 2), cifar_rows(2, 2)
    train[:, 1] = [7, 99, 0, 50]
    binary = {"train.bin": train.tobytes(), "test.bin": test.tobytes()}
    data = load(f"cifar100:{write_files(tmp_path / 'cifar-100-binary', binary).parent}")
    assert data.train.labels.tolist() == [7, 99, 0, 50]
    assert data.num_classes == 100 and data.classes[0] == "apple" and data.classes[99] == "worm"
    python = {
        name: pickle.dumps({"data": rows[:, 2:].copy(), "fine_labels": rows[:, 1].tolist()}, protocol=2)
        for name, rows in (("train", train), ("test", test))
    }
    assert torch.equal(load(f"cifar100:{write_files(tmp_path / 'py', python)}").train.images, data.train.images)


def test_cifar10_from_parquet(tmp_path):
    data = [encoded(pixels(32, 32), "WEBP") for _ in range(3)]
    classes = [f"c{i}" for i in range(10)]
    write_parquet(tmp_path / "train-0.parquet", data, [3, 9, 0], classes)
    write_parquet(tmp_path / "test-0.parquet", data[:1], [4], classes)
    assert load(f"cifar10:{tmp_path}").train.labels.tolist() == [3, 9, 0]
    refused(f"cifar100:{tmp_path}", "is not cifar100", "10 classes")
    refused(f"cifar10:{tmp_path}/train-0.parquet", "folder")


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran-a-command",)


def test_a_malicious_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files, _ = cifar10_files("python")
    for evil in (Evil(), {b"data": Evil(), b"labels": []}):
        files["data_batch_3"] = pickle.dumps(evil, protocol=2)
        refused(f"cifar10:{write_files(tmp_path / 'c', files)}", "data_batch_3", "refused", "system")
    files["data_batch_3"] = b"cbuiltins\neval\n(S'1'\ntR."
    refused(f"cifar10:{write_files(tmp_path / 'c', files)}", "refused", "eval")
    files["data_batch_3"] = b"cnumpy\nndarray\n(NS'x'\ndb."  # tries to change what it may only call
    refused(f"cifar10:{write_files(tmp_path / 'c', files)}", "data_batch_3")
    assert not (tmp_path / "ran-a-command").exists()


def test_damaged_cifar_is_explained(tmp_path):
    refused(f"cifar10:{tmp_path}", "holds no cifar10", "data_batch_1.bin")
    files, _ = cifar10_files("binary")
    archive = write_archive(tmp_path / "c.tar.gz", files)
    archive.write_bytes(archive.read_bytes()[:5000])
    refused(f"cifar10:{archive}", "c.tar.gz", "fetch it again")
    archive.write_bytes(b"not a tar")
    refused(f"cifar10:{archive}", "cannot be read")
    lost = {name: data for name, data in files.items() if name != "data_batch_2.bin"}
    refused(f"cifar10:{write_files(tmp_path / 'lost', lost)}", "lacks data_batch_2.bin")
    files["data_batch_2.bin"] = files["data_batch_2.bin"][:-1]
    refused(f"cifar10:{write_files(tmp_path / 'torn', files)}", "data_batch_2.bin", "multiple of 3073")
    files["data_batch_2.bin"] = b"\x0b" + bytes(3072)
    refused(f"cifar10:{write_files(tmp_path / 'label', files)}", "0 to 11", "10 classes")
    for broken in (b"", b"\x80\x02}q", pickle.dumps([1]), pickle.dumps({"data": np.zeros((2, 5))}, protocol=2)):
        files, _ = cifar10_files("python")
        files["test_batch"] = broken
        refused(f"cifar10:{write_files(tmp_path / 'pickle', files)}", "test_batch", "fetch it again")


def test_cifar_is_found_where_the_environment_says(tmp_path, monkeypatch):
    write_files(tmp_path / "sets" / "cifar10", cifar10_files("binary")[0])
    other = write_files(tmp_path / "other", cifar10_files("python")[0])
    monkeypatch.setenv("SPNET_DATA", str(tmp_path / "sets"))
    first = load("cifar10")
    monkeypatch.setenv("SPNET_DATA", os.pathsep.join([f"cifar10:{other}", str(tmp_path / "sets")]))
    assert not torch.equal(load("cifar10").train.images, first.train.images)
    monkeypatch.setenv("SPNET_DATA", os.pathsep.join([f"cifar100:{other}", str(tmp_path / "sets")]))
    assert torch.equal(load("cifar10").train.images, first.train.images)
    monkeypatch.setenv("SPNET_DATA", str(tmp_path / "typo"))
    refused("cifar10", "SPNET_DATA", "typo", "does not exist")
    monkeypatch.setenv("SPNET_DATA", "cifar10")
    refused("cifar10", "cifar10:PATH")


def test_without_network_the_ways_out_are_named():
    for name in ("cifar10", "cifar100"):
        refused(name, "no network", f"--data {name}:PATH", "SPNET_DATA")


class Reply(io.BytesIO):
    """What urlopen returns; `promised` bytes are announced."""

    def __init__(self, data: bytes, status: int, promised: int) -> None:
        super().__init__(data)
        self.status, self.headers = status, {"Content-Length": str(promised)}


def test_a_download_is_resumed_checked_and_kept(tmp_path, monkeypatch):
    whole = write_archive(tmp_path / "c.tar.gz", cifar10_files("binary")[0]).read_bytes()
    monkeypatch.setitem(download.ARCHIVES, "cifar10", ("cifar-10-binary.tar.gz", hashlib.md5(whole).hexdigest()))
    asked = []

    def reply(request, timeout):
        asked.append(request.get_header("Range"))
        if len(asked) == 1:
            return Reply(whole[:1000], 200, len(whole))
        return Reply(whole[1000:], 206, len(whole) - 1000)

    monkeypatch.setattr(download.urllib.request, "urlopen", reply)
    refused("cifar10", "connection broke", "try again")
    assert len(load("cifar10").train) == 10 and asked == [None, "bytes=1000-"]
    monkeypatch.setattr(download.urllib.request, "urlopen", None)
    assert len(load("cifar10").train) == 10  # from the cache


def test_nothing_is_downloaded_that_must_not_be(monkeypatch):
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: pytest.fail("the network was used"))
    with pytest.raises(UserError, match="cifar10 is not on this machine; give its place with --data cifar10:PATH"):
        load("cifar10", may_download=False)


def test_a_wrong_download_is_thrown_away(monkeypatch):
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: Reply(b"a login page", 200, 12))
    refused("cifar10", "not the published archive")
    assert not list((Path(os.environ["SPNET_CACHE"]) / "cifar10").iterdir())


# -------------------------------------------------------------------------------------------------------- one picture


def test_read_picture_fits_the_network(tmp_path):
    file, shown = tmp_path / "a.png", pixels(8, 6)
    Image.fromarray(shown).save(file)
    image, note = read_picture(file, 3, (6, 8))
    assert note is None and np.array_equal(image.permute(1, 2, 0).numpy(), shown)
    image, note = read_picture(file, 1, (4, 4))
    assert image.shape == (1, 4, 4) and image.dtype == torch.uint8
    assert note == "resized from 8x6 to 4x4, cut to its centre, turned from colour to grey"
    assert read_picture(str(file), 3, (12, 16))[1] == "resized from 8x6 to 16x12"


def test_read_picture_turns_photographs_upright(tmp_path):
    shown, exif = Image.fromarray(pixels(8, 6)), Image.Exif()
    exif[0x0112] = 6  # a camera held on its side
    shown.save(tmp_path / "a.png", exif=exif)
    image, note = read_picture(tmp_path / "a.png", 3, (8, 6))
    assert note is None and np.array_equal(image.permute(1, 2, 0).numpy(), np.rot90(np.array(shown), -1))


def test_read_picture_explains_what_is_wrong(tmp_path):
    for name, data, words in (
        ("missing.png", None, "there is no image file"),
        ("text.png", b"hello", "not a readable image"),
        ("torn.png", encoded(pixels())[:90], "truncated"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=words) as caught:
            read_picture(tmp_path / name, 3, (8, 8))
        assert name in str(caught.value)
    with pytest.raises(UserError, match="5 input channels"):
        read_picture(tmp_path / "text.png", 5, (8, 8))
