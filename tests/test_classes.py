"""Classes are matched by name wherever data meet a trained network; so are the size and the kind of the images."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import spnet
from spnet import data
from spnet.cli import main
from spnet.data.match import matched
from spnet.errors import UserError

SHADES = {"ant": 20, "bee": 120, "cow": 220}
TINY = ["--method", "static", "--backbone", "resnet8", "--epochs", "2", "--batch-size", "6", "--validation", "0"]


def shade(level: int, size: int = 8) -> Image.Image:
    noise = np.random.default_rng(level).integers(-9, 10, (size, size))
    return Image.fromarray((level + noise).astype(np.uint8))


def folder(root: Path, size: int = 8, **names: str) -> Path:
    """One class folder a shade; `names` renames some."""
    for name, level in SHADES.items():
        place = root / names.get(name, name)
        place.mkdir(parents=True)
        for i in range(5):
            shade(level + i, size).save(place / f"{i}.png")
    return root


def parquet(file: Path, names: list[str] | None) -> Path:
    """The same pictures; labels follow `names`, or the alphabet without any."""
    cells, labels = [], []
    for name, level in SHADES.items():
        for i in range(5):
            buffer = io.BytesIO()
            shade(level + i).save(buffer, "PNG")
            cells.append(buffer.getvalue())
            labels.append((names or sorted(SHADES)).index(name))
    table = pa.table({"image": cells, "label": labels})
    if names:
        table = table.replace_schema_metadata({"class_names": json.dumps({"label": names})})
    pq.write_table(table, file)
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of ant, bee and cow, trained at 8 x 8."""
    root = tmp_path_factory.mktemp("classes")
    spec = f"folder:{folder(root / 'set', 16)}?size=8"
    assert main(["train", *TINY, "--data", spec, "--epochs", "12", "--out", str(root / "run")]) == 0
    return root / "run"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPNET_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    """Run a command: its stdout as JSON and the lines of stderr; the one line of a refusal."""

    def start(*argv: object, code: int = 0):
        capsys.readouterr()
        assert main([*map(str, argv), "--json"] if code == 0 else [*map(str, argv)]) == code
        out, err = capsys.readouterr()
        if code == 0:
            return json.loads(out), err.splitlines()
        line = err.splitlines()[-1]
        assert out == "" and line.startswith("spnet: ") and "Traceback" not in err
        return line

    return start


def test_a_loaded_network_knows_its_classes(run: Path) -> None:
    assert spnet.load(run).classes == ("ant", "bee", "cow")
    assert spnet.create_model("resnet8", "static").classes is None


def test_the_size_of_the_training_is_kept(run: Path, said, tmp_path: Path) -> None:
    ours, _ = said("eval", run)
    theirs, lines = said("eval", run, "--data", f"folder:{folder(tmp_path / 'set', 16)}")
    assert theirs["n"] == 3 and theirs["accuracy"] == ours["accuracy"] and lines == []
    assert "(1, 9, 9)" in said("eval", run, "--data", f"folder:{tmp_path / 'set'}?size=9", code=2)


def test_other_names_are_refused_by_every_verb(run: Path, said, tmp_path: Path) -> None:
    """`cow` renamed so that it sorts first: as many classes as before, each with another number."""
    spec = f"folder:{folder(tmp_path / 'set', cow='a cow')}"
    words = "have a class 'a cow' that the network does not know; it knows 'cow', which the data lack"
    pytest.importorskip("onnxruntime")
    for argv in (["eval", run], ["eval", run, "--budget", "0.5"], ["export", run, tmp_path / "x.onnx"]):
        assert words in said(*argv, "--data", spec, code=2)
    assert not (tmp_path / "x.onnx").exists()


def test_another_number_of_classes_says_which(run: Path, said, tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    shutil.copytree(root / "ant", root / "dog")
    assert "with 3 ('dog' is new to it)" in said("eval", run, "--data", f"folder:{root}", code=2)
    shutil.rmtree(root / "dog")
    shutil.rmtree(root / "bee")
    assert "with 3 ('bee' is missing)" in said("eval", run, "--data", f"folder:{root}", code=2)


def test_the_same_names_in_another_order_are_renumbered(run: Path, said, tmp_path: Path) -> None:
    spec = f"parquet:{parquet(tmp_path / 'a.parquet', ['cow', 'ant', 'bee'])}"
    result, lines = said("eval", run, "--data", spec)
    ours, _ = said("eval", run)
    assert result["accuracy"] == ours["accuracy"] and lines == []
    known = matched(data.load(spec), ("ant", "bee", "cow"), (1, 8, 8), num_classes=3)
    assert known.classes == ("ant", "bee", "cow")
    assert known.test.labels.tolist() == [0, 1, 2] and data.load(spec).test.labels.tolist() == [1, 2, 0]
    wrong = f"parquet:{parquet(tmp_path / 'b.parquet', ['cow', 'ant', 'bee']).with_name('c.parquet')}"
    pq.write_table(
        pq.read_table(tmp_path / "b.parquet").replace_schema_metadata({"class_names": '["cow", "ant", "wasp"]'}),
        tmp_path / "c.parquet",
    )
    assert "have a class 'wasp'" in said("eval", run, "--data", wrong, code=2)


def test_composed_and_decomposed_letters_are_one_name() -> None:
    images = data.Split(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    own = data.Dataset("x", images, images, ("the\u0301", "cafe"), (0.0,), (1.0,), data.Augmentation())
    assert matched(own, ("cafe", "th\u00e9"), (1, 8, 8), num_classes=2).test.labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="name a class twice"):
        matched(own, ("cafe", "cafe"), (1, 8, 8), num_classes=2)


def test_where_there_are_no_names_numbers_are_trusted_aloud(run: Path, said, tmp_path: Path) -> None:
    spec = f"parquet:{parquet(tmp_path / 'a.parquet', None)}"
    result, lines = said("eval", run, "--data", spec)
    words = "has no names of classes to compare: labels are taken by number"
    assert result["n"] == 3 and lines == [f"spnet: data 'parquet:a.parquet' {words}"]
    assert main(["train", *TINY, "--data", spec, "--out", str(tmp_path / "run")]) == 0
    assert spnet.load(tmp_path / "run").classes is None
    _, lines = said("eval", tmp_path / "run", "--data", f"folder:{folder(tmp_path / 'set')}")
    assert lines == [f"spnet: the network {words}"]


def test_grey_data_meet_a_network_of_colour(said, tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    Image.new("RGB", (8, 8), "red").save(root / "ant" / "x.png")
    assert main(["train", *TINY, "--data", f"folder:{root}", "--out", str(tmp_path / "run")]) == 0
    (root / "ant" / "x.png").unlink()
    result, lines = said("eval", tmp_path / "run")
    assert result["n"] == 3
    assert lines == [
        "spnet: data 'folder:set' are grey, the network takes colour: each image stands in all three channels"
    ]


def test_a_run_is_not_resumed_on_other_classes(said, tmp_path: Path) -> None:
    root, out = folder(tmp_path / "set"), tmp_path / "run"
    train = ["train", *TINY, "--data", f"folder:{root}", "--out", str(out), "--epochs", "3"]
    assert main([*train, "--time-limit", "0.001"]) == 0
    (root / "cow").rename(root / "a cow")
    before = (out / "config.json").read_bytes()
    assert "have a class 'a cow'" in said("train", "--resume", out, code=2)
    assert (out / "config.json").read_bytes() == before
    (root / "a cow").rename(root / "cow")
    assert main(["train", "--resume", str(out)]) == 0


def test_own_decisions_are_timed_on_the_networks_own_classes(said, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    root, out = folder(tmp_path / "set"), tmp_path / "run"
    tiny = [*TINY, "--method", "spnet", "--data", f"folder:{root}", "--epochs", "3"]
    assert main(["train", *tiny, "--out", str(out)]) == 0
    (root / "cow").rename(root / "a cow")
    assert "have a class 'a cow'" in said("bench", out, "--rates", "own", "--batches", "1", code=2)


def test_a_report_matches_by_name_too(said, tmp_path: Path) -> None:
    """The test images are run again for the page: labels in the network's order, whatever the file's is."""
    names = ["cow", "ant", "bee"]
    file, out, page = tmp_path / "set.parquet", tmp_path / "run", tmp_path / "page.html"
    shutil.copy(parquet(tmp_path / "a.parquet", ["ant", "bee", "cow"]), file)
    tiny = [*TINY, "--method", "spnet", "--epochs", "12", "--data", f"parquet:{file}"]
    assert main(["train", *tiny, "--out", str(out)]) == 0
    assert main(["report", str(out), "--out", str(page)]) == 0
    before = page.read_text()
    assert "Which blocks each class runs" in before and "Run again for this page" not in before
    shutil.copy(parquet(tmp_path / "b.parquet", names), file)
    assert main(["report", str(out), "--out", str(page)]) == 0
    assert page.read_text() == before
    table = pq.read_table(file).replace_schema_metadata({"class_names": json.dumps({"label": ["cow", "ant", "wasp"]})})
    pq.write_table(table, file)
    assert main(["report", str(out), "--out", str(page)]) == 0
    assert "have a class &#x27;wasp&#x27; that the network does not know" in page.read_text()
