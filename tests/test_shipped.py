"""Networks that ship: put into the package by scripts/ship.py, found by name, described by a card."""

import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import spnet
from spnet import UserError, create_model
from spnet.cli import main
from spnet.data.cifar_classes import CIFAR10
from spnet.files import read_json
from spnet.runs import folder as checkpoint
from spnet.runs import open as runs
from spnet.runs.config import RunConfig
from spnet.runs.facts import Facts
from spnet.runs.record import Start

ship: Callable[..., Path] = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "ship.py"))["ship"]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's folder of networks, empty."""
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def standin(weights: Path, trained: Path) -> Path:
    """The digits network under the name `standin`."""
    return ship(str(trained), "standin", weights=weights)


def as_json(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    capsys.readouterr()
    code = main([*map(str, argv), "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def figures(accuracy: float, macs: float, **more: object) -> dict[str, Any]:
    """An evaluation on the 10,000 test images; ResNet-20 has 40.551 MMACs."""
    return {
        "accuracy": accuracy, "n": 10_000, "macs_mean": macs, "macs_static": 40_551_040, "gflops_mean": 2e-9 * macs,
        "cost_ratio": macs / 40_551_040, "execution_rate": 0.75, "distinct_paths": 42,
        "accuracy_shuffled_paths": accuracy - 1.5, "accuracy_fixed_path": accuracy + 0.25,
        "cost_ratio_fixed_path": 0.7875, **more,
    }  # fmt: skip


MADE = {
    "spnet": "0.1.0", "commit": "0123456789", "torch": "2.14", "python": "3.11.7", "hardware": "2x CPU", "threads": 2,
    "precision": "fp32",
}  # fmt: skip


def cifar_run(folder: Path, method: str, backbone: str, final: dict[str, Any], **record: Any) -> Path:
    """A finished run on CIFAR-10 with the record given, trained where the data lie under /secret."""
    config = RunConfig(method, "", backbone, "cifar10:/secret/cifar10", {"epochs": 30, "lr": 0.2})
    start = record.get("started_from")
    facts = Facts(
        CIFAR10, (3, 32, 32), (0.5,) * 3, (0.2,) * 3, "cifar10:/secret/cifar10", Start(**start) if start else None
    )
    checkpoint.write_config(folder, config, facts)
    checkpoint.save_network(folder, create_model(backbone, method, seed=0))
    whole = {"hash": config.hash, "label": config.label, "config": config.to_json(), "last": final, "final": final}
    whole |= {"train_seconds": 7260.0, "train_images": 1_497_600, "made_with": MADE, **record}
    (folder / "result.json").write_text(json.dumps(whole))
    return folder


# By name


def test_a_network_is_loaded_by_its_name(standin: Path, trained: Path) -> None:
    assert runs.shipped() == ["standin"] and runs.run_folder("standin") == standin
    ours, theirs = spnet.load("standin").state_dict(), spnet.load(trained).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())
    with pytest.raises(UserError, match=r"'standing' is neither a run folder nor a shipped network\. Did you mean"):
        spnet.load("standing")
    with pytest.raises(UserError, match="neither a run folder"):
        spnet.load(Path("standin"))  # a path is never a name


def test_list_pretrained_says_accuracy_cost_and_n(standin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    final = json.loads((standin / "result.json").read_text())["final"]
    (entry,) = as_json(capsys, "list", "pretrained")["entries"]
    assert entry["name"] == "standin" and entry["n"] == 40
    assert {key: entry[key] for key in ("accuracy", "macs_mean", "cost_ratio")} == {
        key: final[key] for key in ("accuracy", "macs_mean", "cost_ratio")
    }
    assert main(["list", "pretrained"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"standin  spnet on resnet8, digits: {final['accuracy']:.2f} % (n = 40), ")
    assert f"{100 * final['cost_ratio']:.1f} % of static" in shown


def test_verbs_take_the_name(
    standin: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 20), "white").save("wide.jpg")
    named = as_json(capsys, "predict", "standin", "wide.jpg")["predictions"][0]
    assert named == as_json(capsys, "predict", trained, "wide.jpg")["predictions"][0]
    assert named["class"] in "0123456789" and named["note"].startswith("resized from 30x20 to 8x8")
    ours, theirs = (as_json(capsys, "eval", run) for run in ("standin", trained))
    assert ours["n"] == 450 and ours["run"] == "standin"
    assert all(ours[key] == theirs[key] for key in ("accuracy", "macs_mean", "accuracy_shuffled_paths"))
    assert as_json(capsys, "report", "standin", "--out", "page.html")["page"] == "page.html"


def test_a_training_starts_from_the_name(
    standin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--backbone", "resnet8", "--epochs", 2, "--subset", 100, "--batch-size", 50)
    result = as_json(capsys, "train", *flags, "--init", "standin", "--out", tmp_path / "run")
    record = json.loads((standin / "result.json").read_text())
    assert result["started_from"] == {"name": "standin", "hash": record["hash"]}


# Into the package


def test_no_path_of_the_machine_is_shipped(tmp_path: Path, weights: Path) -> None:
    run = cifar_run(tmp_path / "run", "spnet", "resnet20", figures(92.5, 32e6), budgets=[])
    out = ship(str(run), "cifar10", weights=weights)
    assert {file.name for file in out.iterdir()} == {"config.json", "model.safetensors", "result.json", "card.md"}
    assert not [file for file in out.iterdir() if b"secret" in file.read_bytes()]
    config, facts = checkpoint.read_config(out)
    record = json.loads((out / "result.json").read_text())
    assert config.data == record["config"]["data"] == "cifar10" and facts.classes == tuple(CIFAR10)
    assert config.hash == record["hash"]
    assert spnet.load("cifar10").input_shape == (3, 32, 32)


def test_what_cannot_ship(tmp_path: Path, weights: Path, trained: Path) -> None:
    unfinished = shutil.copytree(trained, tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    with pytest.raises(UserError, match="unfinished is not finished"):
        ship(str(unfinished), "a", weights=weights)
    private = cifar_run(tmp_path / "private", "static", "resnet8", figures(90.0, 12e6))
    config = json.loads((private / "config.json").read_text())
    (private / "config.json").write_text(json.dumps({**config, "data": "folder:/secret/photos"}))
    with pytest.raises(UserError, match="only named data sets can ship"):
        ship(str(private), "a", weights=weights)
    damaged = shutil.copytree(trained, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="damaged"):
        ship(str(damaged), "a", weights=weights)
    assert runs.shipped() == []


def test_changed_sources_are_said(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {**MADE, "commit": "0123456789-dirty"}
    run = cifar_run(tmp_path / "run", "static", "resnet20", figures(93.0, 40e6), made_with=made)
    ship(str(run), "a", weights=weights)
    assert "trained on changed sources, 0123456789-dirty" in capsys.readouterr().err


# The card


def flowing(text: str) -> str:
    """The card with each paragraph, entry and command on one line: it is broken for a screen."""
    return re.sub(r"(?<!\n)\n(?![\n|#`-]) *", " ", text.replace(" \\\n    ", " "))


def test_the_card_is_made_of_the_records(tmp_path: Path, weights: Path) -> None:
    static = cifar_run(tmp_path / "static", "static", "resnet20", figures(93.0, 40_551_040.0))
    ship(str(static), "cifar10-static", weights=weights)
    small = cifar_run(tmp_path / "small", "static", "resnet14", figures(91.75, 26e6))
    large = cifar_run(tmp_path / "large", "static", "resnet26", figures(93.5, 55e6))
    final = figures(92.5, 32_440_832.0)  # 80 % of static
    start = {"name": "cifar10-static", "hash": read_json(static / "result.json")["hash"]}
    record = {
        "budgets": [{"budget": 0.5, **figures(89.0, 20_275_520.0)}, {"budget": 0.1, "missed": "0.1 is out of reach"}],
        "calibrated": {"budget": 0.8, **final},
        "last": figures(92.75, 36e6),
        "started_from": start,
    }
    run = cifar_run(tmp_path / "run", "spnet", "resnet20", final, **record)
    out = ship(str(run), "cifar10", "cifar10-static", [str(small / "result.json"), str(large)], weights)
    text = flowing((out / "card.md").read_text())
    for said in (
        "**92.50 %** of the 10,000 test images (standard error 0.26 points); one run, last epoch, test images read",
        "**32.441 MMACs = 0.06488 GFLOPs an image = 80.0 % of static** (40.551 MMACs)",
        "| as trained | 92.75 | 36.000 | 0.07200 | 88.8 | 91.25 | 93.00 |\n| 0.8 | 92.50 |",
        "| 0.5 | 89.00 | 20.276 | 0.04055 | 50.0 | 87.50 | 89.25 |",
        "Not met: 0.1 is out of reach",
        "every image on another's path: 91.00 %, 1.50 points below its own",
        "every image on one path: 92.75 % at 78.8 % of static, 0.25 points above its own",
        "`cifar10` misses by 0.50 points its static baseline `cifar10-static` (93.00 %), at 80.0 % of its cost.",
        "The best smaller static network at its cost (within 2 %) or less, static resnet14, is 0.75 points below it.",
        "| static resnet26 | 93.50 | 55.000 | 135.6 | 30 | 1,497,600 |",
        "--backbone resnet20 --data cifar10 --epochs 30 --lr 0.2 --init cifar10-static\n",
        f"started from the weights of `cifar10-static` (config {start['hash']})",
        "- commit 0123456789\n- spnet 0.1.0, torch 2.14, python 3.11.7\n- 2x CPU, 2 threads, fp32\n- 2 h 1 min",
        "without an explicit licence",
        "It knows 10 classes (airplane, automobile,",
    ):
        assert said in text, said


def test_the_card_of_a_static_network_has_no_controls(tmp_path: Path, weights: Path) -> None:
    run = cifar_run(tmp_path / "run", "static", "resnet20", figures(93.0, 40_551_040.0))
    text = (ship(str(run), "cifar10-static", weights=weights) / "card.md").read_text()
    sections = [line for line in text.splitlines() if line.startswith("#")]
    assert sections == ["# cifar10-static", "## Use", "## Training", "## Data", "## Intended use and limits"]
    assert "distinct paths" not in text and "started from" not in text


def test_a_network_that_goes_on_from_its_rival_counts_both_trainings(tmp_path: Path, weights: Path) -> None:
    static = cifar_run(tmp_path / "somewhere", "static", "resnet20", figures(93.0, 40_551_040.0))
    ship(str(static), "cifar10-static", weights=weights)
    start = {"name": "somewhere", "hash": json.loads((static / "result.json").read_text())["hash"]}
    run = cifar_run(tmp_path / "run", "spnet", "resnet20", figures(92.5, 32e6), budgets=[], last=figures(92.5, 32e6),
                    started_from=start)  # fmt: skip
    out = ship(str(run), "cifar10", "cifar10-static", weights=weights)
    text = flowing((out / "card.md").read_text())
    assert "| this network | 92.50 | 32.000 | 78.9 | 30 + 30 | 2,995,200 |" in text
    assert "It goes on from static resnet20, with all their images; the others have seen those of one" in text
    assert "started from the weights of `cifar10-static`" in text and "somewhere" not in text
    assert json.loads((out / "config.json").read_text())["started_from"]["name"] == "cifar10-static"


def test_a_network_that_goes_on_from_the_next_one_counts_all_trainings(tmp_path: Path, weights: Path) -> None:
    def step(name: str, backbone: str, start: Path | None) -> Path:
        begun = {"name": "x", "hash": read_json(start / "result.json")["hash"]} if start else None
        method = "spnet" if start else "static"
        more = {"budgets": [], "started_from": begun} if start else {}
        return cifar_run(tmp_path / name, method, backbone, figures(92.5, 32e6), **more)

    static = step("a", "resnet20", None)
    middle = step("b", "resnet20", static)
    last = step("c", "resnet14", middle)
    ship(str(static), "cifar10-static", weights=weights)
    with pytest.raises(UserError, match="which does not ship: ship that first"):
        ship(str(last), "cifar10-fast", "cifar10-static", weights=weights)
    ship(str(middle), "cifar10", "cifar10-static", weights=weights)
    text = flowing((ship(str(last), "cifar10-fast", "cifar10-static", weights=weights) / "card.md").read_text())
    assert "It goes on from static resnet20, then spnet resnet20, with all" in text
    assert "| 30 + 30 + 30 | 4,492,800 |" in text and "--init cifar10\n" in text
