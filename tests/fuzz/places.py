"""Small valid files of every kind, in one folder; each kind spoils some for the length of a case."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from judge import command
from PIL import Image

from spnet import reproduction
from spnet.bench.profile import Profile, save_profile
from spnet.cli import main
from spnet.files import write_json
from spnet.jobs.runner import with_curves
from spnet.reproduction.plan import FITTING, Plan
from spnet.reproduction.scales import SCALES
from spnet.runs.forms import to_json

Draw = Callable[[st.SearchStrategy[Any]], Any]
CLASSES = ("ant", "bee", "cow")
TARGETS = ("budgets", "precision", "stability", "table3")
"""Of `spnet reproduce` at scale smoke: tables made of records alone."""


class Places:
    """Everything valid, in one folder; `spoilt` puts other bytes in a file's place for one case, then the old ones."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.pictures = home / "pictures"
        class_folders(self.pictures)
        self.parquet = parquet_of(home / "images.parquet", self.pictures)
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
        self.records = home / "records"
        _records(self.records, self.run)

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


def image(seed: int, mode: str = "L", size: tuple[int, int] = (8, 8)) -> Image.Image:
    grey = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(grey).convert(mode)


def class_folders(folder: Path) -> None:
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for k in range(5):
            image(10 * label + k).save(folder / name / f"{k}.png")


def parquet_of(file: Path, pictures: Path) -> Path:
    files = sorted(pictures.rglob("*.png"))
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in files],
        "label": [CLASSES.index(path.parent.name) for path in files],
    }
    facts = {"info": {"features": {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}}}
    table = pa.table(rows).replace_schema_metadata({"huggingface": json.dumps(facts)})
    pq.write_table(table, file)
    return file


def _records(folder: Path, run: Path) -> None:
    """What `spnet reproduce` reads: a record for each run of these targets, all with the figures of one."""
    whole = to_json(with_curves(run))
    scale = SCALES["smoke"]
    plan = Plan(scale, scale.seeds, {}, FITTING, "spnet reproduce")
    for target in TARGETS:
        for planned in reproduction.runs(target, plan):
            write_json(folder / f"{planned.hash}.json", {**whole, "hash": planned.hash, "config": planned.to_json()})
