"""`A+B` where a verb wants a network."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import part

from spnet import Cascade, data, load
from spnet.cli import main
from spnet.cli.named import members
from spnet.inference.cascade.engine import CascadeEngine
from spnet.inference.cascade.evaluate import evaluate_cascade
from spnet.runs.config import RunConfig
from spnet.training.fit import fit
from spnet.training.parts import Parts, unseen


@pytest.fixture(scope="module")
def pair(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """SP-Net of 8 layers, then a plain ResNet-14."""
    folder = tmp_path_factory.mktemp("dear") / "run"
    settings = {"epochs": 3, "batch_size": 64, "validation": 0.0, "precision": "fp32"}
    fit(RunConfig("static", "", "resnet14", "digits", settings), part(data.load("digits"), train=512, test=40), folder)
    return f"{trained}+{folder}"


def answer(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, argv), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    capsys.readouterr()
    assert main([*map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    return err


def test_eval_meets_a_budget_and_tells_of_the_members(pair: str, capsys):
    result = answer(capsys, "eval", pair, "--budget", 0.8)
    assert result["calibration_cost"] == pytest.approx(0.8, rel=0.02)
    assert result["cost_ratio"] == pytest.approx(0.8, rel=0.1) and result["n"] == 450
    assert result["calibration_images"] == 1347 and result["held_out"] is False  # neither run has a validation part
    first, last = result["members"]
    assert (first["run"], last["run"]) == tuple(pair.split("+")) and last["confidence"] is None
    assert first["share"] + last["share"] == pytest.approx(1) and 0 < first["share"] < 1
    whole = first["share"] * first["accuracy"] + last["share"] * last["accuracy"]
    assert result["accuracy"] == pytest.approx(whole)
    main(["eval", pair, "--budget", "0.8"])
    told = capsys.readouterr().out
    assert f"accuracy            {result['accuracy']:.2f} %" in told and "that members were trained on" in told
    assert result["epochs"] == [3, 3] and result["student_passes"] == 2 * 3 * 512
    assert "trained             3 + 3 epochs, 3,072 images passed through the student" in told


def test_an_evaluation_is_what_one_gets_by_hand(pair: str):
    nets = [load(name) for name in pair.split("+")]
    test = data.load("digits").test.select(range(60))
    engine = CascadeEngine(Cascade(nets, 0.9), "masked")
    figures = evaluate_cascade(engine, test)
    with torch.no_grad():
        trace, alone = engine(test.images), [net(test.images, heads=False) for net in nets]
    assert figures.accuracy == pytest.approx(100 * (trace.logits.argmax(1) == test.labels).double().mean().item())
    assert figures.macs_mean == trace.macs.double().mean().item()
    for row, own in zip(figures.members, alone, strict=True):
        assert row.accuracy_alone == pytest.approx(100 * (own.logits.argmax(1) == test.labels).double().mean().item())
        assert row.cost_alone == pytest.approx(own.macs.double().mean().item() / nets[1].static_macs)
    low, high = sorted(row.accuracy_alone for row in figures.members)
    assert low - 15 <= figures.accuracy_shuffled_paths <= high + 15


def test_eval_without_a_budget_takes_one_confidence_for_all(pair: str, capsys):
    assert answer(capsys, "eval", pair)["members"][0]["confidence"] == 0.9
    result = answer(capsys, "eval", pair, "--exit-confidence", 0.5, "--executor", "gathered")
    assert result["members"][0]["confidence"] == 0.5


def test_a_sweep_has_a_row_for_each_budget_and_confidence(pair: str, capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setattr("spnet.inference.sweep.BUDGETS", (0.02, 0.7))
    monkeypatch.setattr("spnet.inference.sweep.CONFIDENCES", (0.9,))
    out = tmp_path / "sweep"
    rows = answer(capsys, "eval", pair, "--sweep", "--out", out)["sweep"]
    assert [(row["budget"], row["exit_confidence"]) for row in rows] == [(0.02, None), (0.7, None), (None, 0.9)]
    assert "out of reach" in rows[0]["missed"] and rows[1]["calibration_cost"] == pytest.approx(0.7, rel=0.02)
    for row in rows[1:]:
        assert len(row["exit_shares"]) == 2 and sum(row["exit_shares"]) == pytest.approx(1)
    table = (out / "sweep.md").read_text()
    assert "left by member: " in table and (out / "sweep.svg").is_file()
    assert rows[1]["accuracy"] == answer(capsys, "eval", pair, "--budget", 0.7)["accuracy"]


def test_predict_says_who_answered_by_which_path(pair: str, capsys, tmp_path: Path):
    picture = tmp_path / "grey.png"
    Image.new("L", (8, 8), 99).save(picture)
    for confidence, who, path in ((0, 0, "|-"), (1, 1, "1|11|11|11")):
        argv = ("predict", pair, picture, picture, "--exit-confidence", confidence)
        found = answer(capsys, *argv)["predictions"][0]
        assert found["exit_stage"] == who and len(found["path"]) == 9
        assert main([*map(str, argv)]) == 0
        told = capsys.readouterr().out
        assert path in told and told.rstrip().endswith(f"by {pair.split('+')[who]}")


def test_what_is_no_cascade_is_refused_in_one_line(pair: str, trained: Path, capsys):
    assert "names no cascade" in refusal(capsys, "eval", f"{trained}+")
    assert "'nowhere' is neither a run folder nor a shipped network" in refusal(capsys, "eval", f"{trained}+nowhere")
    assert "member 1 of the cascade takes images of" in refusal(capsys, "eval", f"{trained}+cifar10")
    assert "max_cost is for one network" in refusal(capsys, "eval", pair, "--max-cost", 0.5)
    assert "out of reach: this cascade takes" in refusal(capsys, "eval", pair, "--budget", 0.1)
    assert "give one of them" in refusal(capsys, "eval", pair, "--budget", 0.8, "--exit-confidence", 0.9)
    assert "unknown executor" in refusal(capsys, "predict", pair, "x.png", "--executor", "quick")


def test_a_folder_with_a_plus_in_its_name_is_one_run(tmp_path: Path):
    folder = tmp_path / "a+b"
    folder.mkdir()
    assert members(str(folder)) == [str(folder)] and members("cifar10-fast+cifar10") == ["cifar10-fast", "cifar10"]


def test_unseen_images_are_those_of_validation_parts_and_what_subsets_left():
    train = data.load("digits").train
    runs = [
        RunConfig("static", "", "resnet8", "digits", settings)
        for settings in ({"validation": 0.2}, {"validation": 0.0, "subset": 900}, {"validation": 0.1, "subset": 1000})
    ]
    marked = train.labelled(torch.arange(len(train)))  # who is who
    for chosen in ([runs[0]], runs[1:], runs):
        places = set(unseen(train, chosen).tolist())
        for config in chosen:
            seen = Parts.of(data.load("digits"), config).train
            pixels = {image.numpy().tobytes() for image in seen.images}
            assert not any(marked.images[place].numpy().tobytes() in pixels for place in places)
    assert len(unseen(train, [runs[0]])) == round(0.2 * len(train)) and len(unseen(train, runs)) < len(train) - 900
    assert not len(unseen(train, [RunConfig("static", "", "resnet8", "digits", {"validation": 0.0})]))


def test_bench_calibrates_and_times_a_cascade(pair: str, capsys, forked_bench: None):
    quick = ("--batches", 1, "--threads", 1, "--rounds", 1, "--seconds", 0.01, "--no-profile")
    result = answer(capsys, "bench", pair, "--budget", 0.8, *quick)
    (row,) = result["records"][0]["dynamic"]
    assert result["budget"] == 0.8 and row["rate"] == "own" and row["cost"] == pytest.approx(0.8, rel=0.1)
    assert "a cascade's decisions cannot be forced" in refusal(capsys, "bench", pair, "--rates", 0.5, *quick)
    assert "add --rates own" in refusal(capsys, "bench", "cifar10", "--rates", 0.5, "--budget", 0.8)
