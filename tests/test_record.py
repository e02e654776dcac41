"""One schema for a record: what it refuses, by name; what it writes is what it reads; old records read as they are."""

import json
import math
import pickle
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

import spnet
from spnet.errors import UserError
from spnet.runs.facts import ComputedWith, Facts
from spnet.runs.forms import Misfit, fill, to_json
from spnet.runs.open import SHIPPED
from spnet.runs.record import (
    Curves,
    EndOfTraining,
    EpochRow,
    Evaluation,
    RunResult,
    Start,
    read_metrics,
    read_result,
    write_metrics,
    write_result,
)

ROOT = Path(__file__).parent.parent
RECORDS = [*sorted((ROOT / "results").glob("*.json")), *sorted((ROOT / "src/spnet/weights").glob("*/result.json"))]


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ([], ""),
        ({"final": 3}, "final"),
        ({"final": {"accuracy": "97"}}, "final/accuracy"),
        ({"final": {"accuracy": True}}, "final/accuracy"),
        ({"last": {"accuracy": 1e101}}, "last/accuracy"),
        ({"last": {"n": 10**30}}, "last/n"),
        ({"last": {"n": 4.5}}, "last/n"),
        ({"budgets": {}}, "budgets"),
        ({"budgets": [{}, {"missed": 1}]}, "budgets/1/missed"),
        ({"end_of_training": {"losses": {"path": []}}}, "end_of_training/losses/path"),
        ({"end_of_training": {"always_run": [0, "1"]}}, "end_of_training/always_run/1"),
        ({"made_with": "here"}, "made_with"),
        ({"curves": {"phase": [1]}}, "curves/phase/0"),
        ({"config": {"settings": []}}, "config/settings"),
    ],
)
def test_what_has_another_type_is_refused_by_its_name(record: object, name: str, tmp_path: Path) -> None:
    with pytest.raises(Misfit) as refused:
        fill(RunResult, record)
    assert refused.value.name == name
    (tmp_path / "result.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"is damaged: '{name or 'config'}' is of the wrong kind") as said:
        read_result(tmp_path / "result.json")
    assert "\n" not in str(said.value)


def test_what_is_absent_null_or_unknown_fits() -> None:
    absent = fill(RunResult, {"later": 1, "final": {"accuracy": None, "n": math.nan}, "budgets": None})
    assert absent == RunResult() and not absent.final.met and not absent.routed and absent.asked == ()
    row = fill(EpochRow, {"losses": {"path": None}, "stage_accuracy": [None, 90], "always_run": [None]})
    assert math.isnan(row.losses["path"]) and math.isnan(row.stage_accuracy[0]) and row.stage_accuracy[1] == 90
    assert row.always_run == (0,) and row.always_skipped is None and row.routed


def test_what_has_to_be_there_is_missed_by_its_name() -> None:
    whole = {"classes": ["a"], "input_shape": [1, 8, 8], "mean": [0.5], "std": [0.5]}
    facts = fill(Facts, whole, whole=True)
    assert facts.fault() is None and to_json(facts) == {**whole, "started_from": None}
    for key, value in (("classes", None), ("input_shape", [8, 8]), ("mean", [None]), ("started_from", 3)):
        with pytest.raises(Misfit) as refused:
            fill(Facts, {**whole, key: value}, whole=True)
        assert refused.value.name.partition("/")[0] == key
    assert replace(facts, std=(0.0,)).fault() == "std" and replace(facts, mean=(math.nan,)).fault() == "mean"
    assert replace(facts, classes=()).fault() == "classes" and replace(facts, std=(1.0, 1.0)).fault() == "std"


def test_a_default_is_not_written_and_nothing_measured_is_lost(tmp_path: Path) -> None:
    assert to_json(Evaluation(budget=0.5, missed="out of reach")) == {"budget": 0.5, "missed": "out of reach"}
    assert set(to_json(EndOfTraining())) == set(EndOfTraining.__dataclass_fields__)  # these always are
    row = EpochRow(epoch=1, losses={"path": math.inf}, stage_accuracy=(math.nan, 50.0), always_run=(), n=3)
    assert to_json(row)["losses"] == {"path": None} and to_json(row)["stage_accuracy"] == [None, 50.0]
    assert to_json(row)["always_run"] == [] and "always_skipped" not in to_json(row)
    write_metrics(tmp_path, [row])
    (back,) = read_metrics(tmp_path)
    assert to_json(back) == to_json(row)
    result = RunResult(budgets=(), calibrated=Evaluation(accuracy=90.0), started_from=Start("a", "0" * 12))
    write_result(tmp_path / "result.json", result)
    assert read_result(tmp_path / "result.json") == result
    assert to_json(pickle.loads(pickle.dumps(result))) == to_json(deepcopy(result)) == to_json(result)


def test_curves_are_rounded_and_leave_out_what_no_epoch_measured() -> None:
    rows = [EpochRow(phase="a", cost_ratio=1 / 3), EpochRow(phase="b", cost_ratio=0.5, flips=0.25)]
    curves = Curves.of(rows)
    assert curves.phase == ("a", "b") and curves.cost_ratio == (0.33333, 0.5)
    assert math.isnan(curves.flips[0]) and curves.flips[1] == 0.25 and curves.path_agreement == ()
    assert set(to_json(curves)) == {"phase", "cost_ratio", "flips"}


def without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value


def test_every_committed_record_is_written_as_it_was_read() -> None:
    assert len(RECORDS) > 200
    for path in RECORDS:
        assert without_nulls(to_json(read_result(path))) == without_nulls(json.loads(path.read_text())), path.name


def test_what_was_computed_with_something_else_is_said_as_far_as_it_is_known() -> None:
    now = ComputedWith(2, 1, "cpu")
    assert ComputedWith().differs(now) == "" and now.differs(now) == ""
    assert ComputedWith(threads=1).differs(now).startswith("begun with 1 threads, now 2: the run goes on")


@pytest.mark.parametrize("name", ["method", "wrapper", "backbone", "data", "settings", "classes", "mean"])
def test_a_config_whose_entries_are_empty_is_damaged(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED / "cifar10-small", tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, name: None}))
    with pytest.raises(UserError, match=f"'{name}' is of the wrong kind"):
        spnet.load(folder)
