"""What is spoilt: small valid files, each with the commands that read it."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hostile import (
    VALUES,
    as_json,
    spoilt_bytes,
    spoilt_json,
    spoilt_lines,
    spoilt_state,
    spoilt_tensors,
    spoilt_values,
)
from judge import call, command, difference
from PIL import Image
from safetensors.torch import load, save

from spnet.bench.profile import Profile, profile_path, save_profile
from spnet.cli import main
from spnet.inference.export import open_export
from spnet.inference.export.reader import UNSIGNED, signature
from spnet.runs.weights import to_bytes

Draw = Callable[[st.SearchStrategy[Any]], Any]
CLASSES = ("ant", "bee", "cow")


class Places:
    """Everything valid, in one folder; `spoilt` puts other bytes in a file's place for one case, then the old ones."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.pictures = home / "pictures"
        _class_folders(self.pictures)
        self.parquet = _parquet(home / "images.parquet", self.pictures)
        self.run, self.stopped, self.work = home / "run", home / "stopped", home / "work"
        self.onnx, self.page = home / "net.onnx", home / "page.html"
        argv = ["train", "--data", f"folder:{self.pictures}", "--backbone", "resnet8", "--epochs", "3", "--hidden", "8"]
        argv += ["--batch-size", "6", "--validation", "0", "--static-share", "0", "--out", str(self.run)]
        assert main(argv) == 0
        assert main(["export", str(self.run), str(self.onnx)]) == 0
        (self.run / "report.html").unlink()
        shutil.copytree(self.run, self.stopped)
        (self.stopped / "result.json").unlink()
        path = self.stopped / "state" / "resume.pt"
        self.state = torch.load(path, weights_only=True)
        self.state |= {"epoch": 2, "rows": self.state["rows"][:2]}
        torch.save(self.state, path)
        self.picture = next(self.pictures.rglob("*.png"))
        save_profile(Profile(0.9, 0.9, "here"))

    @contextmanager
    def spoilt(self, file: Path, content: bytes) -> Iterator[None]:
        before = file.read_bytes()
        file.write_bytes(content)
        try:
            yield
        finally:
            file.write_bytes(before)

    @contextmanager
    def copied(self, folder: Path) -> Iterator[Path]:
        """For commands that write where they read."""
        shutil.copytree(folder, self.work)
        try:
            yield self.work
        finally:
            shutil.rmtree(self.work)

    def answer(self, *argv: object) -> str:
        try:
            return command(self.home, *argv)
        finally:
            self.page.unlink(missing_ok=True)


def _image(seed: int, mode: str = "L", size: tuple[int, int] = (8, 8)) -> Image.Image:
    grey = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(grey).convert(mode)


def _class_folders(folder: Path) -> None:
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for k in range(5):
            _image(10 * label + k).save(folder / name / f"{k}.png")


def _parquet(file: Path, pictures: Path) -> Path:
    files = sorted(pictures.rglob("*.png"))
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in files],
        "label": [CLASSES.index(path.parent.name) for path in files],
    }
    facts = {"info": {"features": {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}}}
    table = pa.table(rows).replace_schema_metadata({"huggingface": json.dumps(facts)})
    pq.write_table(table, file)
    return file


def config(draw: Draw, at: Places) -> str:
    verb = draw(st.sampled_from(("predict", "predict", "eval", "resume", "report", "export", "init")))
    content = draw(spoilt_json((at.run / "config.json").read_bytes()))
    return _on_a_run(at, verb, "config.json", content)


def weights(draw: Draw, at: Places) -> str:
    whole = (at.run / "model.safetensors").read_bytes()
    kind = draw(st.sampled_from(("bytes", "tensors", "signed tensors")))
    if kind == "bytes":
        content = draw(spoilt_bytes(whole))
    else:
        content = (save if kind == "tensors" else to_bytes)(draw(spoilt_tensors(load(whole))))
    verb = draw(st.sampled_from(("predict", "predict", "eval", "report", "export", "init")))
    return _on_a_run(at, verb, "model.safetensors", content)


def state(draw: Draw, at: Places) -> str:
    if draw(st.integers(0, 2)):
        buffer = io.BytesIO()
        torch.save(draw(spoilt_state(at.state)), buffer)
        content = buffer.getvalue()
    else:
        content = draw(spoilt_bytes((at.stopped / "state" / "resume.pt").read_bytes()))
    return _on_a_run(at, "resume", "state/resume.pt", content)


def metrics(draw: Draw, at: Places) -> str:
    content = draw(spoilt_lines((at.run / "metrics.jsonl").read_bytes()))
    return _on_a_run(at, draw(st.sampled_from(("report", "several"))), "metrics.jsonl", content)


def record(draw: Draw, at: Places) -> str:
    content = draw(spoilt_json((at.run / "result.json").read_bytes()))
    verb = draw(st.sampled_from(("report", "several", "finished", "auto")))
    return _on_a_run(at, verb, "result.json", content)


def _on_a_run(at: Places, verb: str, name: str, content: bytes) -> str:
    before = (at.run / name).read_bytes()
    wrong = _answer_on_a_run(at, verb, name, content)
    return f"{wrong} [{name} {difference(before, content)}]" if wrong else ""


def _answer_on_a_run(at: Places, verb: str, name: str, content: bytes) -> str:
    if verb in ("resume", "finished"):
        with at.copied(at.stopped if verb == "resume" else at.run) as run:
            (run / name).write_bytes(content)
            return at.answer("train", "--resume", run, "--json")
    with at.spoilt(at.run / name, content):
        if verb == "init":
            new = at.home / "new"
            argv = [
                "train",
                "--data",
                f"folder:{at.pictures}",
                "--backbone",
                "resnet8",
                "--epochs",
                1,
                "--init",
                at.run,
            ]
            try:
                return at.answer(*argv, "--batch-size", 6, "--hidden", 8, "--out", new, "--time-limit", 1e-9)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        more: dict[str, tuple[object, ...]] = {
            "predict": ("predict", at.run, at.picture, "--json"),
            "auto": ("predict", at.run, at.picture, "--executor", "auto"),
            "eval": ("eval", at.run, "--json"),
            "export": ("export", at.run, at.page, "--static-path", "all"),
            "report": ("report", at.run, "--out", at.page),
            "several": ("report", at.run, at.stopped, "--out", at.page),
        }
        return at.answer(*more[verb])


def exported(draw: Draw, at: Places) -> str:
    content = at.onnx.read_bytes()
    if draw(st.integers(0, 2)):
        content = draw(spoilt_bytes(content))
    else:
        model = onnx.load_from_string(content)
        entry = draw(st.sampled_from(list(model.metadata_props)))
        value = entry.value
        if entry.key == "sha256" or draw(st.integers(0, 3)) == 0:
            entry.key, value = draw(st.sampled_from((entry.key, "more"))), draw(st.text(max_size=20))
        elif value.startswith(("[", "{", "null")):
            value = as_json(draw(spoilt_values(json.loads(value)))).decode()
        entry.value = value.encode("utf-8", "replace").decode()
        for signed in (prop for prop in model.metadata_props if prop.key == "sha256"):
            signed.value = UNSIGNED.decode()
        content = model.SerializeToString()
        content = content.replace(UNSIGNED, signature(content, "").encode())
    with at.spoilt(at.onnx, content):

        def run() -> None:
            file = open_export(at.onnx)
            _, decisions = file(np.zeros((2, *file.facts["input_shape"]), np.uint8))
            file.macs(decisions)

        return call(run)


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
    _image(draw(st.integers(0, 3)), mode, draw(st.sampled_from(((8, 8), (1, 1), (13, 5))))).save(buffer, form, **more)
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
        return at.answer("eval", at.run, "--data", f"parquet:{at.parquet}", "--json")


def folders(draw: Draw, at: Places) -> str:
    place = at.home / "set"
    shutil.copytree(at.pictures, place)
    try:
        for _ in range(draw(st.integers(1, 3))):
            _disturb(draw, place)
        size = draw(st.sampled_from(("", "", "?size=8", "?size=0", "?size=x")))
        if draw(st.integers(0, 3)):
            return at.answer("eval", at.run, "--data", f"folder:{place}{size}", "--json")
        return at.answer("predict", at.run, place, "--json")
    finally:
        shutil.rmtree(place)


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
        if kind == "rename" and victim.exists() and not new.exists() and victim not in new.parents:
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
        _image(5).save(new / "1.png", "png")
    else:
        new.write_bytes(_picture(draw)[1])


def profile(draw: Draw, at: Places) -> str:
    with at.spoilt(profile_path(), draw(spoilt_json(profile_path().read_bytes()))):
        return at.answer("predict", at.run, at.picture, "--executor", "auto", "--json")


KINDS: dict[str, Callable[[Draw, Places], str]] = {
    kind.__name__: kind
    for kind in (config, weights, state, metrics, record, exported, picture, parquet, folders, profile)
}
