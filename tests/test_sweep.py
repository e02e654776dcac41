"""`spnet eval --sweep`: every point is the evaluation it stands for, and the network is left as it was."""

import json
import math
from pathlib import Path

import pytest
import torch
from tiny import lively, part

from spnet import DynamicNetwork, Engine, UserError, create_model, data, load
from spnet.cli import main
from spnet.data import Dataset
from spnet.inference.calibrate import calibrate, mean_cost, reestimate_batch_norm
from spnet.inference.evaluate import collect, percent
from spnet.inference.sweep import BUDGETS, CONFIDENCES, EXIT_BUDGET, sweep
from spnet.report.figures.theme import COST
from spnet.report.sweep import HEAD, LINES, cells, picture, text

ROW = {
    "budget", "exit_confidence", "reestimated", "calibration_cost", "accuracy", "n", "macs_mean", "gflops_mean",
    "cost_ratio", "cost_error", "execution_rate", "distinct_paths", "exit_shares",
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return part(data.load("digits"), train=200, test=100)


@pytest.fixture(scope="module")
def rows(trained: Path, dataset: Dataset) -> list[dict]:
    return sweep(load(trained), dataset.train, dataset.test, augmentation=dataset.augmentation)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spnet.inference.sweep.BUDGETS", (0.02, 0.7))
    monkeypatch.setattr("spnet.inference.sweep.CONFIDENCES", (0.9,))


def state(net: DynamicNetwork) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_every_point_is_there(rows: list[dict]):
    asked = [(row["budget"], row["exit_confidence"], row["reestimated"]) for row in rows]
    wanted = [(budget, None, again) for budget in BUDGETS for again in (False, True)]
    wanted += [(budget, confidence, False) for budget in (None, EXIT_BUDGET) for confidence in CONFIDENCES]
    assert asked == wanted
    for row in rows:
        if "missed" in row:
            assert "out of reach: this network costs 0." in row["missed"] and "accuracy" not in row
            continue
        assert set(row) == ROW and row["n"] == 100
        assert row["gflops_mean"] == pytest.approx(2e-9 * row["macs_mean"])
        if row["budget"] is None:
            assert row["calibration_cost"] is None and row["cost_error"] is None
        else:
            assert row["calibration_cost"] == pytest.approx(row["budget"], rel=0.02)
            assert row["cost_error"] == pytest.approx(row["cost_ratio"] / row["budget"] - 1)
        if row["exit_confidence"] is None:
            assert row["exit_shares"] is None
        else:
            assert len(row["exit_shares"]) == 3 and sum(row["exit_shares"]) == pytest.approx(1)
    assert sum("missed" not in row for row in rows) >= 15


def test_points_are_what_one_gets_by_hand(rows: list[dict], trained: Path, dataset: Dataset):
    def row(budget: float | None, exit_confidence: float | None = None, reestimated: bool = False) -> dict:
        asked = {"budget": budget, "exit_confidence": exit_confidence, "reestimated": reestimated}
        return next(row for row in rows if asked.items() <= row.items())

    def same(row: dict, engine: Engine) -> None:
        results = collect(engine, dataset.test)
        assert row["accuracy"] == percent(results["correct"])
        assert row["macs_mean"] == results["macs"].double().mean().item()

    net = load(trained)
    assert row(0.7)["calibration_cost"] == calibrate(net, dataset.train, 0.7)
    same(row(0.7), Engine(net, "masked"))
    reestimate_batch_norm(net, dataset.train, dataset.augmentation)
    assert row(0.7, reestimated=True)["calibration_cost"] == calibrate(net, dataset.train, 0.7)
    same(row(0.7, reestimated=True), Engine(net, "masked"))


def test_early_exits_are_what_one_gets_by_hand(
    few: None, trained: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    net = load(trained)
    with torch.no_grad():
        confidence = float(net(dataset.test.images).stage_logits[0].softmax(1).amax(1).median())
    monkeypatch.setattr("spnet.inference.sweep.CONFIDENCES", (confidence,))
    monkeypatch.setattr("spnet.inference.sweep.EXIT_BUDGET", 0.4)  # with half of the images gone, 0.8 is out of reach
    *_, alone, combined = sweep(net, dataset.train, dataset.test)
    for row in (alone, combined):
        engine = Engine(net, "masked", exit_confidence=confidence)
        if row["budget"]:
            assert engine.calibrate(dataset.train.images, 0.4) == row["calibration_cost"]
        results = collect(engine, dataset.test)
        assert row["accuracy"] == percent(results["correct"])
        assert row["macs_mean"] == results["macs"].double().mean().item()
        left = [(results["exit_stage"] == stage).double().mean().item() for stage in range(3)]
        assert row["exit_shares"] == pytest.approx(left) and 0 < left[0] < 1


def test_the_network_is_left_as_it_was(few: None, trained: Path, dataset: Dataset):
    net = load(trained)
    net.decision_shift.fill_(0.3)
    before = state(net)
    seen: list[dict] = []

    def interrupt(row: dict) -> None:
        seen.append(row)
        if row["reestimated"] and "missed" not in row:
            assert not all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(net, dataset.train, dataset.test, progress=interrupt)
    assert [row["budget"] for row in seen] == [0.02, 0.02, 0.7, 0.7]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.decision_shift == before["decision_shift"] and mean_cost(net, dataset.train) > 0


def test_another_executor_tells_the_same(few: None, trained: Path, dataset: Dataset):
    """Not the budget that lies out of reach, which comes first, plain and re-estimated."""
    net = load(trained)
    masked, onnx = (sweep(net, dataset.train, dataset.test, executor=name) for name in ("masked", "onnx"))
    assert len(onnx) == len(masked) > 4
    for mine, theirs in zip(onnx[2:], masked[2:], strict=True):
        assert mine["accuracy"] == theirs["accuracy"] and mine["macs_mean"] == pytest.approx(theirs["macs_mean"])
        assert mine["exit_shares"] == theirs["exit_shares"]


def test_without_stage_heads_there_are_no_exits(few: None, dataset: Dataset):
    net = lively(create_model("resnet8", "convnet-aig", in_channels=1, image_size=8, seed=0))
    assert all(row["exit_confidence"] is None for row in sweep(net, dataset.train, dataset.test))


@pytest.mark.parametrize("wrapper", ["", "spnet"])
def test_a_static_network_has_no_curve(wrapper: str, dataset: Dataset):
    net = create_model("resnet8", "static", wrapper=wrapper, in_channels=1, image_size=8)
    with pytest.raises(UserError, match="a static network has no decisions to sweep"):
        sweep(net, dataset.train, dataset.test)


def test_the_table_is_aligned_and_the_picture_has_its_lines(rows: list[dict]):
    table = cells(rows)
    assert {len(line) for line in table} == {len(HEAD)}
    result = {"label": "spnet", "run": "some/run", "n": 100, "executor": "masked", "threads": 1, "sweep": rows}
    heading, _, *lines = text(result).splitlines()
    assert heading.startswith("spnet, run: accuracy against cost on 100 test images")
    for name in HEAD[:-1]:
        end = lines[0].index(name) + len(name)
        assert all(len(line) <= end or line[end] == " " for line in lines), name
    drawn = picture(result).axes[0]
    assert [line.get_label() for line in drawn.lines] == [*LINES.values(), "every block runs"]
    assert drawn.get_title(loc="left") == heading.partition("  (")[0] and drawn.get_xlabel() == COST
    assert (
        len({str(line.get_marker()) for line in drawn.lines})
        == len({str(line.get_color()) for line in drawn.lines})
        == 5
    )
    missed = [{**row, "missed": "no"} for row in rows]
    assert not picture({**result, "sweep": missed}).axes[0].lines


def test_the_command(
    few: None, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("spnet.cli.counting.SILENCE", math.inf)  # however busy the machine is
    weights = (trained / "model.safetensors").read_bytes()
    assert main(["eval", str(trained), "--sweep", "--out", str(tmp_path / "out"), "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert out.count("\n") == 1 and err == "" and len(result["sweep"]) == 6
    assert {"run", "label", "made_with", "n", "executor", "threads", "macs_static"} <= set(result)
    assert result["n"] == 450 and result["sweep"][0]["missed"].startswith("budget 0.02 is out of reach")
    assert result["sweep"][2]["cost_ratio"] == pytest.approx(0.7, rel=0.05)
    files = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert set(files) == {"sweep.json", "sweep.md", "sweep.svg", "sweep.png"}
    assert json.loads(files["sweep.json"])["sweep"] == result["sweep"]
    assert files["sweep.md"].count(b"\n| ") == 8 and b"missed: budget 0.02" in files["sweep.md"]
    assert str(trained.parent) not in files["sweep.md"].decode() + files["sweep.svg"].decode()
    assert files["sweep.png"][:4] == b"\x89PNG" and b"<svg" in files["sweep.svg"]
    assert (trained / "model.safetensors").read_bytes() == weights
    monkeypatch.setattr("spnet.inference.sweep.BUDGETS", ())
    assert main(["eval", str(trained), "--sweep"]) == 0
    assert "accuracy %" in capsys.readouterr().out.splitlines()[2]
