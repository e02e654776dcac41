"""Pictures, Parquet files, class folders and published archives, spoilt, each with the commands that read them."""

import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hostile import VALUES, as_json, spoilt_bytes, spoilt_values
from judge import call, listing
from places import CLASSES, Draw, Places, image

from spnet.data import load

PICTURES = (
    ("png", "L", {}),
    ("png", "RGB", {}),
    ("png", "P", {}),
    ("png", "1", {}),
    ("png", "RGBA", {}),
    ("jpg", "RGB", {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
    ("jpg", "CMYK", {}),
    ("gif", "P", {}),
    ("bmp", "RGB", {}),
    ("webp", "RGB", {}),
    ("tiff", "L", {}),
    ("ppm", "RGB", {}),
)


def _picture(draw: Draw) -> tuple[str, bytes]:
    ending, mode, more = draw(st.sampled_from(PICTURES))
    buffer = io.BytesIO()
    form = {"jpg": "jpeg"}.get(ending, ending)
    image(draw(st.integers(0, 3)), mode, draw(st.sampled_from(((8, 8), (1, 1), (13, 5))))).save(buffer, form, **more)
    return ending, draw(spoilt_bytes(buffer.getvalue()))


def picture(draw: Draw, at: Places) -> str:
    ending, content = _picture(draw)
    file = at.home / f"spoilt.{ending}"
    file.write_bytes(content)
    try:
        others = [at.picture] if draw(st.booleans()) else []
        return at.answer("predict", at.run, file, *others, "--json")
    finally:
        file.unlink()


def parquet(draw: Draw, at: Places) -> str:
    kind = draw(st.sampled_from(("bytes", "pictures", "labels", "columns", "names")))
    if kind == "bytes":
        content = draw(spoilt_bytes(at.parquet.read_bytes()))
    else:
        table = pq.read_table(at.parquet)
        rows: dict[str, Any] = table.to_pydict()
        facts: Any = json.loads((table.schema.metadata or {})[b"huggingface"])
        if kind == "pictures":
            rows["image"][draw(st.integers(0, 14))]["bytes"] = draw(st.one_of(st.none(), st.just(_picture(draw)[1])))
        elif kind == "labels":
            kinds: tuple[Any, ...] = (-1, 3, 10**9, 10**15, None)
            rows["label"][draw(st.integers(0, 14))] = draw(st.sampled_from(kinds))
        elif kind == "columns":
            name, value = draw(st.sampled_from(("image", "label"))), draw(st.sampled_from(("x", 0.5, None, [1], b"x")))
            rows[name] = [value] * draw(st.sampled_from((0, 15)))
            rows = {key: values[: len(rows[name])] for key, values in rows.items()}
        else:
            facts = draw(spoilt_values(facts, tuple(value for value in VALUES if value != "\ud800")))
        table = pa.table(rows).replace_schema_metadata({"huggingface": as_json(facts)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        content = buffer.getvalue()
    with at.spoilt(at.parquet, content):
        if not draw(st.integers(0, 3)):
            return _train(at, f"photos:{at.parquet}?size=8")
        return at.answer("eval", at.run, "--data", f"parquet:{at.parquet}", "--json")


def folders(draw: Draw, at: Places) -> str:
    place = at.home / "set"
    shutil.copytree(at.pictures, place)
    try:
        for _ in range(draw(st.integers(1, 3))):
            _disturb(draw, place)
        size = draw(st.sampled_from(("", "", "?size=8", "?size=0", "?size=x")))
        verb = draw(st.sampled_from(("eval", "eval", "predict", "train", "photos")))
        if verb == "train":
            return _train(at, f"folder:{place}{size}")
        if verb == "photos":
            return _train(at, f"photos:{place}?size=8")
        if verb == "eval":
            return at.answer("eval", at.run, "--data", f"folder:{place}{size}", "--json")
        return at.answer("predict", at.run, place, "--json")
    finally:
        shutil.rmtree(place)


def _train(at: Places, spec: str) -> str:
    """A training of an epoch, from the first image to the page about it."""
    new = at.home / "new"
    tiny = ("--method", "static", "--backbone", "resnet8", "--epochs", 1, "--batch-size", 6, "--validation", 0)
    try:
        wrong = at.answer("train", "--data", spec, *tiny, "--out", new, "--json")
        # Test photos are first read after the training, whose epochs are kept: it goes on when they are mended.
        trained = "photos are unreadable" in wrong and (new / "state" / "resume.pt").is_file()
        return "" if trained else wrong
    finally:
        shutil.rmtree(new, ignore_errors=True)


NAMES = ("x.png", "x.jpg", "x.txt", ".x.png", "é\n\x1b[2J.png", os.fsdecode(b"\xff.png"), "y" * 250, "train", "test")
DISORDER = ("file", "file", "folder", "pipe", "link", "loop", "remove", "class", "rename", "locked")


def _disturb(draw: Draw, place: Path) -> None:
    """Something in a class folder, or among them, that does not belong there."""
    kind = draw(st.sampled_from(DISORDER))
    inside = place / draw(st.sampled_from(("", *CLASSES)))
    inside = inside if inside.is_dir() else place
    new = inside / draw(st.sampled_from(NAMES))
    files = [path for path in sorted(place.rglob("*.png")) if path.is_file() and not path.is_symlink()]
    if kind == "remove" or kind == "rename":
        victim = draw(st.sampled_from((*files, *(place / name for name in CLASSES))))
        if kind == "rename" and victim.exists() and not os.path.lexists(new) and victim not in new.parents:
            victim.rename(new)
        elif victim.is_dir():
            shutil.rmtree(victim)
        else:
            victim.unlink(missing_ok=True)
    elif kind == "locked" and files:
        draw(st.sampled_from(files)).chmod(0)
    elif os.path.lexists(new):
        return
    elif kind == "folder":
        new.mkdir()
    elif kind == "pipe":
        os.mkfifo(new)
    elif kind == "link":
        new.symlink_to(draw(st.sampled_from(("/dev/zero", "/dev/stdin", "nowhere", "/", str(place)))))
    elif kind == "loop":
        new.symlink_to(new)
    elif kind == "class":
        new.mkdir()
        image(5).save(new / "1.png", "png")
    else:
        new.write_bytes(_picture(draw)[1])


BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
PAYLOADS = (
    pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, protocol=2),
    pickle.dumps({b"data": np.zeros((2, 3072), np.int64), b"labels": [0, 1]}, protocol=2),
    pickle.dumps({b"data": np.zeros((2, 3071), np.uint8), b"labels": [0, 256]}, protocol=2),
    b"cos\nmkdir\n(S'harm'\ntR.",
    b'cbuiltins\neval\n(S\'open("harm", "w")\'\ntR.',
)


def cifar(draw: Draw, at: Places) -> str:
    """The forms that CIFAR is published in, and packed, a few images each."""
    place = at.home / "cifar"
    place.mkdir()
    form = draw(st.sampled_from(("binary", "python", "archive", "packed")))
    try:
        for name, content in (_packed(draw) if form == "packed" else _published(draw, form)).items():
            (place / name).write_bytes(content)
        before = listing(at.home)
        wrong = call(lambda: load(f"cifar10:{place}"))
        return wrong or ("wrote something" if listing(at.home) != before else "")
    finally:
        shutil.rmtree(place)


def _published(draw: Draw, form: str) -> dict[str, bytes]:
    whole = bytes(1 + 3072) + b"\1" + bytes(3072) if form == "binary" else PAYLOADS[0]
    files = dict.fromkeys(BATCHES, whole)
    files[draw(st.sampled_from(BATCHES))] = draw(st.one_of(spoilt_bytes(whole), st.sampled_from(PAYLOADS)))
    if form == "archive":
        return {"cifar-10-python.tar.gz": draw(spoilt_bytes(_archive(files)))}
    return {name + ".bin" * (form == "binary"): content for name, content in files.items()}


def _packed(draw: Draw) -> dict[str, bytes]:
    """One array of another kind or shape, or missing; or other bytes."""
    arrays: dict[str, Any] = {}
    for part in ("train", "test"):
        arrays |= {f"{part}_images": np.zeros((4, 3, 32, 32), np.uint8), f"{part}_labels": np.arange(4)}
    name = draw(st.sampled_from(tuple(arrays)))
    own = arrays.pop(name)
    for other in draw(
        st.sampled_from(((own,), (own,), (own - 0.5,), (own[:0],), (own[None],), (-1 * own.astype(int),), ()))
    ):
        arrays[name] = other
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    content = buffer.getvalue()
    return {"cifar10-1-of-1.npz": draw(st.one_of(st.just(content), spoilt_bytes(content)))}


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
