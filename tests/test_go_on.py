"""Going on from what is there: a run elsewhere, another run's weights, few images, another machine."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from spnet.cli import main
from spnet.data import load
from spnet.runs.config import RunConfig
from spnet.training import finish
from spnet.training.fit import fit

TINY = ("--backbone", "resnet8", "--epochs", "2", "--batch-size", "8", "--validation", "0")


def pictures(root: Path, classes: str = "ab", each: int = 12, seed: int = 0) -> Path:
    """A folder of random grey pictures of 8x8 pixels, brighter from class to class."""
    draw = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        for part in ("train", "test"):
            (root / part / name).mkdir(parents=True)
            for i in range(each):
                pixels = draw.integers(60 * number, 60 * number + 60, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]):
    """Run a command: exit code and the lines on stderr."""

    def start(*argv: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = main([*map(str, argv)])
        return code, capsys.readouterr().err.splitlines()

    return start


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Data that moved


def test_a_run_goes_on_from_another_working_folder(here: Path, told, monkeypatch: pytest.MonkeyPatch):
    pictures(here / "pics")
    argv = ("train", "--method", "static", "--data", "folder:pics", *TINY)
    assert told(*argv, "--out", "my runs/a b", "--time-limit", "1e-9")[0] == 0
    monkeypatch.chdir(here / "my runs")
    assert told("train", "--resume", "a b")[0] == 0
    record = (here / "my runs/a b/result.json").read_text()
    assert str(here) not in record and json.loads(record)["config"]["data"] == "folder:pics"


def test_every_verb_finds_the_data_from_another_working_folder(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("onnxruntime")
    pictures(here / "pics")
    argv = ["train", "--data", "folder:pics", *TINY, "--epochs", "3", "--static-share", "0", "--out", "run"]
    assert main(argv) == 0
    pictures(here / "else" / "pics", "cd")  # what the relative path means there
    monkeypatch.chdir(here / "else")
    run = str(here / "run")
    assert main(["eval", run, "--json"]) == 0
    assert main(["eval", run, "--budget", "1.0", "--json"]) == 0
    monkeypatch.setattr("spnet.inference.sweep.BUDGETS", (0.7,))
    monkeypatch.setattr("spnet.inference.sweep.CONFIDENCES", (0.9,))
    assert main(["eval", run, "--sweep", "--json"]) == 0
    capsys.readouterr()
    assert main(["export", run, "net.onnx", "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported["note"] == "" and exported["real"] == 24
    assert main(["report", run, "--out", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "Which blocks each class runs" in page and "Not shown" not in page
    monkeypatch.setattr("spnet.bench.bench.bench", lambda net, config, images, data: [{"n": len(images), "batch": 1}])
    monkeypatch.setattr("spnet.bench.table.describe", lambda record: f"{record['n']} images")
    assert main(["bench", run, "--rates", "own", "--batches", "1", "--no-profile"]) == 0
    assert "24 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "home", ["", "x", "folder:", "digits", "digits:.", "folder:a\0b", "folder:" + "a" * 5000, None]
)
def test_a_home_that_cannot_be_is_no_home(home: object, here: Path, told):
    pictures(here / "pics")
    argv = ("train", "--method", "static", "--data", "folder:pics", *TINY, "--epochs", "1", "--out", "run")
    assert told(*argv)[0] == 0
    record = json.loads((here / "run/config.json").read_text())
    (here / "run/config.json").write_text(json.dumps({**record, "data_at": home}))
    assert told("eval", "run") == (0, [])
    assert told("report", "run", "--out", "page.html")[0] == 0
    assert told("train", "--init", "run", "--time-limit", "1e-9", "--out", "next")[0] == 0


def test_data_that_moved_are_named_beside_resume(here: Path, told):
    pictures(here / "pics")
    assert told("train", "--method", "static", "--data", "folder:pics", *TINY, "--out", "whole")[0] == 0
    assert (
        told("train", "--method", "static", "--data", "folder:pics", *TINY, "--out", "r", "--time-limit", "1e-9")[0]
        == 0
    )
    (here / "pics").rename(here / "moved")
    code, lines = told("train", "--resume", "r")
    assert code == 2 and "there is no file or folder" in lines[-1]
    before = (here / "r/config.json").read_bytes()
    pictures(here / "renamed", classes="ac")
    pictures(here / "others", seed=1)
    for spec, words in (
        ("digits", "this run was trained on folder; say where that lies now"),
        ("folder:renamed", "have a class 'c' that the network does not know; it knows 'b', which the data lack"),
        ("folder:others", "r was trained on other images: their mean was "),
    ):
        code, lines = told("train", "--resume", "r", "--data", spec)
        assert code == 2 and words in lines[-1], lines
    assert (here / "r/config.json").read_bytes() == before and not (here / "r/.lock").exists()
    assert told("train", "--resume", "r", "--data", "folder:moved")[0] == 0
    assert (here / "r/model.safetensors").read_bytes() == (here / "whole/model.safetensors").read_bytes()
    names = [json.loads((here / run / "result.json").read_text())["hash"] for run in ("r", "whole")]
    assert names[0] == names[1]


def test_printed_commands_can_be_pasted(here: Path, capsys: pytest.CaptureFixture[str]):
    argv = ["train", "--method", "static", "--subset", "64", "--backbone", "resnet8", "--epochs", "1", "--out", "a b/c"]
    assert main([*argv, "--time-limit", "1e-9"]) == 0
    _, _, command = capsys.readouterr().out.strip().partition("continue with: ")
    assert command == "spnet train --resume 'a b/c'"
    assert main(argv) == 2
    assert "continue it with --resume 'a b/c', or" in capsys.readouterr().err
    assert main(shlex.split(command)[1:]) == 0


# Another run's weights


def test_other_classes_get_a_new_head(here: Path, told, trained: Path):
    pictures(here / "pics", "abc")
    code, lines = told("train", "--data", "folder:pics", *TINY, "--init", trained, "--lr", "1e-12", "--out", "new")
    assert code == 0
    (line,) = [line for line in lines if line.startswith("spnet: from")]
    assert line == (
        f"spnet: from {trained}: backbone, router; new: head, stage heads (other classes); "
        "mean and std are those of these data."
    )
    ours, theirs = (load_file(run / "model.safetensors") for run in (here / "new", trained))
    for name in ("backbone.stem.0.weight", "backbone.blocks.0.residual1.0.weight"):
        torch.testing.assert_close(ours[name], theirs[name])
    assert ours["backbone.head.weight"].shape[0] == 3


def test_after_init_config_and_network_agree(here: Path, told, trained: Path):
    """On the statistics of the new images."""
    pictures(here / "pics")
    told("train", "--data", "folder:pics", *TINY, "--init", trained, "--out", "new")
    facts, weights = json.loads((here / "new/config.json").read_text()), load_file(here / "new/model.safetensors")
    dataset = load("folder:pics")
    for name, own in (("mean", dataset.mean), ("std", dataset.std)):
        assert facts[name] == pytest.approx(own) and weights[name].flatten().tolist() == pytest.approx(own)
    assert load("digits").mean[0] != pytest.approx(dataset.mean[0])


def test_another_backbone_is_refused(here: Path, told, trained: Path):
    code, lines = told("train", "--backbone", "resnet14", "--init", trained, "--out", "new")
    assert code == 2 and "its backbone differs (no matching 'backbone.blocks." in lines[-1]
    code, lines = told("train", *TINY, "--skip-rule", "own-projection", "--init", trained, "--out", "new")
    assert code == 2 and "block rule and image channels" in lines[-1] and not (here / "new").exists()


def test_a_finished_run_is_trained_longer_from_its_weights(here: Path, told, trained: Path):
    run = shutil.copytree(trained, here / "a run")
    code, lines = told("train", "--resume", "a run", "--epochs", "4")
    assert code == 2
    hint = "a new run goes on from its weights: spnet train --init 'a run' --epochs 4"
    assert lines[-1].endswith(hint)
    code, lines = told(*shlex.split(hint.partition(": spnet ")[2]), "--out", "longer", "--subset", "64")
    assert code == 0 and lines[1].startswith("spnet: from a run: backbone") and "new: nothing" in lines[1]
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (here / "longer", run))
    assert ours["settings"] == {**theirs["settings"], "epochs": 4, "subset": 64}
    assert ours["started_from"]["name"] == "a run"


# Few images


def test_a_batch_nobody_asked_for_is_fitted(here: Path, told):
    pictures(here / "pics")
    argv = ("train", "--method", "static", "--data", "folder:pics", "--backbone", "resnet8", "--epochs", "1")
    code, lines = told(*argv, "--validation", "0", "--out", "run")
    assert code == 0 and lines[0] == "spnet: batch size 4 instead of 128: there are 24 training images."
    assert json.loads((here / "run/config.json").read_text())["settings"]["batch_size"] == 4
    code, lines = told(*argv, "--batch-size", "25", "--validation", "0", "--out", "asked")
    assert code == 2 and "batch_size 25 is larger than the 24 training images: lower it" in lines[-1]
    config = RunConfig("static", "", "resnet8", "folder:pics", {"epochs": 1, "validation": 0.0})
    notes: list[str] = []
    steps: list[float] = []
    fit(config, load("folder:pics"), here / "python", note=notes.append, moved=steps.append)
    assert notes == ["batch size 4 instead of 128: there are 24 training images."]
    assert steps == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])


# Another machine


def test_other_threads_are_said(here: Path, told):
    settings = {"epochs": 2, "batch_size": 32, "subset": 64, "validation": 0.0}
    config = RunConfig("static", "", "resnet8", "digits", settings)

    class Stop(Exception): ...

    def stop(row: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        fit(config, load("digits"), here / "run", report=stop)
    shutil.copytree(here / "run", here / "same")
    assert not [line for line in told("train", "--resume", "same", "--threads", "1")[1] if "begun" in line]
    _, lines = told("train", "--resume", "run", "--threads", "2")
    said = "spnet: begun with 1 threads, now 2: the run goes on, but not in the same bits."
    assert [line for line in lines if "begun" in line] == [said]


def test_the_commit_is_that_of_our_own_sources(here: Path, monkeypatch: pytest.MonkeyPatch):
    """A package inside somebody's repository, ignored or even kept there, is not that repository."""

    def git(*words: str) -> None:
        settings = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *settings, *words], cwd=here, check=True, capture_output=True)

    def inside(folder: str) -> str:
        monkeypatch.setattr(finish, "__file__", str(here / folder / "spnet/training/finish.py"))
        return finish.commit()

    for folder in ("env/lib/site-packages", "src"):
        (here / folder / "spnet/training").mkdir(parents=True)
        shutil.copy(finish.__file__, here / folder / "spnet/training")
    git("init", "-q")
    git("add", "env")
    git("commit", "-q", "-m", "theirs")
    assert inside("env/lib/site-packages") == ""
    assert inside("src") == ""
    git("add", "src")
    git("commit", "-q", "-m", "ours")
    assert len(inside("src")) == 10


# A state that lies


@pytest.mark.parametrize(
    "lie",
    [{"epoch": -1}, {"epoch": 10**9}, {"epoch": 2}, {"epoch": "1"}, {"rows": []}, {"net": 3}, {"optimizer": None}],
    ids=str,
)
def test_a_state_that_lies(lie: dict, here: Path, told, trained: Path):
    run = shutil.copytree(trained, here / "run")
    (run / "result.json").unlink()
    path = run / "state/resume.pt"
    torch.save({**torch.load(path, weights_only=True), **lie}, path)
    code, lines = told("train", "--resume", "run")
    assert code == 2 and lines[-1].startswith("spnet: run/state/resume.pt is damaged: it is no state of this run")
