"""`spnet sweep`: combinations of settings as one list of runs, a table over seeds, nothing trained twice."""

import csv
import json
from pathlib import Path

import pytest

from spnet.cli import main

TINY = ("--method", "static", "--backbone", "resnet8", "--epochs", "1", "--subset", "64", "--batch-size", "32")


def swept(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    capsys.readouterr()
    assert main(["sweep", *TINY, "--workers", "0", "--json", *argv]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_combination_is_a_row_over_its_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    said = swept(capsys, "--grid", "lr=0.05,0.1", "--grid", "weight-decay=0", "--grid", "seed=0,1")
    assert said["runs"] == 4 and said["failed"] == [] and len(list(Path("swept/results").glob("*.json"))) == 4
    rows = [row for row in csv.DictReader(Path("swept/sweep.csv").read_text().splitlines())]
    assert [(row["method"], row["n"]) for row in rows] == [
        ("lr 0.05, weight_decay 0", "2"),
        ("lr 0.1, weight_decay 0", "2"),
    ]
    # One value more: what is finished is not trained again.
    stamps = {path: path.stat().st_mtime_ns for path in Path("swept/results").glob("*.json")}
    assert swept(capsys, "--grid", "lr=0.05,0.1,0.2", "--weight-decay", "0", "--grid", "seed=0,1")["runs"] == 6
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert main(["sweep", *TINY, "--workers", "0", "--grid", "lr=0.05", "--weight-decay", "0"]) == 0
    assert "| lr 0.05 | 1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--grid", "lr"], "--grid wants a setting and its values, such as lr=0.05,0.1; not 'lr'"),
        (["--grid", "lr="], "--grid wants a setting and its values"),
        (["--grid", "rl=1,2"], "unknown setting 'rl'. Did you mean 'lr'?"),
        (["--grid", "lr=much"], "'lr' wants a number, not 'much'"),
        (["--grid", "lr=1", "--grid", "lr=2"], "is given twice"),
        (["--grid", "lr=1", "--lr", "2"], "lr is given twice"),
        (["--workers", "-1"], "--workers must be at least 1"),
        (["--run-gpus", "1"], "--run-cpus and --run-gpus go with --on ray"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(
    argv: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *TINY, *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1 and not list(tmp_path.iterdir())
