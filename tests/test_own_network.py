"""A network and photos of one's own, through the command line: from its weights to a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

import spnet
from spnet.cli import main
from spnet.inference.evaluate import class_accuracy
from spnet.training.devices import has_bf16

NETWORK = ("--method", "static", "--backbone", "torchvision:mobilenet_v3_small", "--epochs", "1", "--batch-size", "4")
IMAGENET = [0.485, 0.456, 0.406]


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """Four photos of two classes for training, four for the test; a little larger than CIFAR's designs expect."""
    for part in ("train", "test"):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for k in range(2):
                pixels = np.full((90, 80, 3), 60 + 120 * label + k, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / part / name / f"{k}.png")
    return f"photos:{tmp_path / 'photos'}?size=72"


def plain(classes: int) -> torch.nn.Module:
    torch.manual_seed(3)
    return torchvision.models.mobilenet_v3_small(num_classes=classes)


def train(photos: str, out: Path, init: Path, *more: str) -> int:
    return main(
        ["train", *NETWORK, "--data", photos, "--validation", "0", "--out", str(out), "--init", str(init), *more]
    )


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "checkpoint of several processes"])
def test_training_starts_from_a_state_dict(kind: str, photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = plain(1000).state_dict()
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(state, file)
    elif kind == "state dict":
        torch.save(state, file)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    assert train(photos, tmp_path / "run", file, "--lr", "1e-30", "--workers", "2", "--cache-gb", "0.1") == 0
    err = capsys.readouterr().err
    assert "242 tensors taken; 2 of another shape (classifier.3.weight, classifier.3.bias)" in err
    assert "design for" not in err
    taken = spnet.load(tmp_path / "run").backbone.state_dict()
    assert torch.equal(taken["features.0.0.weight"], state["features.0.0.weight"])
    assert taken["classifier.3.weight"].shape == (2, 1024)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["mean"] == IMAGENET and config["started_from"]["name"] == file.name
    assert main(["eval", str(tmp_path / "run"), "--workers", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["class_accuracy"] == 50


def test_a_run_that_began_so_goes_on(photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_file(plain(2).state_dict(), tmp_path / "w.safetensors")
    assert train(photos, tmp_path / "run", tmp_path / "w.safetensors", "--epochs", "2", "--time-limit", "1e-9") == 0
    (tmp_path / "w.safetensors").unlink()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0


class Trap:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("trapped"),))


@pytest.mark.parametrize("kind", ["another network's", "no tensors", "code", "nan", "empty", "noise", "missing"])
def test_files_that_are_refused(
    kind: str, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pth"
    state = plain(2).state_dict()
    if kind == "another network's":
        state = torchvision.models.mobilenet_v2(num_classes=2).state_dict()
    elif kind == "nan":
        state["features.0.0.weight"][0] = float("nan")
    saved: object = {"no tensors": {"epoch": 3}, "code": {"w": Trap()}}.get(kind, state)
    if kind in ("empty", "noise"):
        file.write_bytes(b"" if kind == "empty" else bytes(range(256)) * 9)
    elif kind != "missing":
        torch.save(saved, file)
    assert train(photos, tmp_path / "run", file) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) <= 2 and not (tmp_path / "run" / "config.json").exists()
    assert not Path("trapped").exists()


def test_the_mean_over_classes_counts_each_class_alike():
    correct, labels = torch.tensor([True, True, True, False, False]), torch.tensor([0, 0, 0, 0, 2])
    assert class_accuracy(correct, labels) == pytest.approx(37.5)  # three quarters and nothing; class 1 has no image


@pytest.mark.parametrize("flags", [("--workers", "0"), ("--workers", "x"), ("--cache-gb", "-1"), ("--cache-gb", "nan")])
def test_how_photos_are_read_is_checked(flags: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    assert main(["eval", "cifar10", *flags]) == 2
    assert flags[0] in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "faster"), [("avx512_bf16 avx2", False), ("avx512_bf16 amx_bf16", True), ("bf16", True)]
)
def test_bf16_by_itself_wants_matrix_instructions(flags: str, faster: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "read_text", lambda self: f"flags : {flags}")
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    assert has_bf16.__wrapped__("cpu") is faster
