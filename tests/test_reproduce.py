"""The paper's tables and figures: the plans behind them, and every target at scale smoke through the command line."""

import csv
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tiny import part

from spnet import data, reproduction
from spnet.cli import main
from spnet.reproduction import figure2, figure3, table1
from spnet.reproduction.output import Printed, write_tables
from spnet.reproduction.plan import READINGS, Plan
from spnet.reproduction.scales import SCALES


def plan(scale: str, seeds: int = 1) -> Plan:
    return Plan(SCALES[scale], SCALES[scale].seeds[:seeds])


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is evaluated many times over: on 60 test images instead of 450."""
    digits = part(data.load("digits"), train=400, test=60)
    monkeypatch.setattr("spnet.data.digits.load", lambda: digits)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records shared by the targets, so that each run is trained once, as for a user."""
    return tmp_path_factory.mktemp("smoke")


LONG = ("table1", "table2", "supplement-a", "stability")


@pytest.mark.parametrize(
    "target",
    [pytest.param(target, marks=pytest.mark.slow if target in LONG else ()) for target in reproduction.PAPER],
)
def test_every_target_passes_at_scale_smoke(
    target: str, smoke: Path, few_digits: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--results", str(smoke / "results"), "--work", str(smoke / "work"), "--out", str(smoke / "out")]
    assert main(["reproduce", target, "--scale", "smoke", "--workers", "0", "--json", *folders]) == 0
    files = [Path(file) for file in json.loads(capsys.readouterr().out)["files"]]
    kinds = {".svg", ".png"} if target.startswith("figure") else {".md", ".csv", ".tex", ".html"}
    assert {file.suffix for file in files} == kinds
    for file in files:
        opens = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".html": b"<!doctype html>"}.get(file.suffix, b"")
        assert file.read_bytes().startswith(opens)
        if file.suffix == ".svg":
            assert len(list(ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}path"))) > 10
    if not target.startswith("figure"):
        texts = {file.suffix: file.read_text() for file in files}
        rows = [row for row in csv.reader(texts[".csv"].splitlines()) if row]
        heads = [row for row in rows if row[0] == "table"]
        marked = [line for line in texts[".md"].splitlines() if line.startswith("| ")]
        assert len(heads) >= 1 and len(rows) > len(heads) and all(len(row) > 2 for row in rows)
        assert len(marked) - len(heads) == len(rows)  # a rule below each head
        assert texts[".html"].count("<tr>") == texts[".tex"].count(r" \\") == len(rows)
        table = (smoke / "out" / f"{target}.md").read_text()
        assert table.count("\n| ") > 4 and "figures mean nothing" in table and "MMACs" in table
        planned = len(reproduction.runs(target, plan("smoke")))
        assert f"{planned} of {planned} runs finished" in table
    # Again: nothing is left to train.
    assert main(["reproduce", target, "--scale", "smoke", "--dry-run", "--json", *folders]) == 0
    assert json.loads(capsys.readouterr().out)["to_do"] == 0


def test_tables_share_their_runs() -> None:
    together = {run.hash for target in reproduction.PAPER for run in reproduction.runs(target, plan("cpu"))}
    apart = [run.hash for target in reproduction.PAPER for run in reproduction.runs(target, plan("cpu"))]
    assert len(together) < 0.8 * len(apart)
    # One SP-Net run of the common recipe serves Table 2, the ladder of terms, figure 2 and the stability table.
    common = plan("cpu").run("cifar10", "spnet").hash
    for target in ("table2", "supplement-a", "figure2", "stability"):
        assert common in {run.hash for run in reproduction.runs(target, plan("cpu"))}, target


def test_seeds_are_paired_and_change_nothing_else() -> None:
    first, second = Plan(SCALES["cpu"], (0, 1)).runs("cifar10", "convnet-aig")
    assert first.hash != second.hash and first.with_settings(seed=1).hash == second.hash


def test_the_common_recipe_gives_every_method_the_same_epochs_and_images() -> None:
    runs = [
        plan("cpu").run("cifar10", method) for method in ("static", "convnet-aig", "skipnet", "blockdrop", "rdi-net")
    ]
    for name in ("epochs", "subset", "batch_size", "lr", "schedule", "weight_decay", "seed"):
        assert len({getattr(run.training, name) for run in runs}) == 1, name
    assert "budget" not in runs[0].settings and runs[1].settings["budget"] == 0.79


def test_the_readings_of_table_1_weigh_different_losses() -> None:
    point = {"alpha": 0.6, "beta": 0.3, "gamma": 1e-2}
    assert table1.weights(READINGS[0], **point) == {"path": 0.6, "logits": 0.3, "evolution": 1e-2}
    assert table1.weights(READINGS[1], **point) == {
        "classification": 0.6,
        "path": 0.3,
        "logits": 0.3,
        "evolution": 1e-2,
    }
    assert table1.weights(READINGS[2], **point) == {"path": 0.6, "logits": 0.6, "evolution": 0.3, "cost": 1e-2}


def test_shallow_networks_get_the_cost_weights_that_weigh_as_much_beside_the_rate_loss_as_in_the_paper() -> None:
    def costs(scale: str) -> set[float]:
        return {run.settings["cost"] for run in reproduction.runs("table1", plan(scale)) if "cost" in run.settings}

    assert costs("cpu") == {1e-5, 1e-4, 1e-3, 1e-2, 6e-3, 6e-2}  # 54 blocks against nine
    assert costs("paper") == {1e-5, 1e-4, 1e-3, 1e-2}


def test_the_digits_records_of_the_first_table_are_still_found() -> None:
    wanted = reproduction.runs("methods", plan("digits", seeds=5))
    results = Path(__file__).parents[1] / "results"
    assert sum((results / f"{run.hash}.json").is_file() for run in wanted) >= 40


def test_the_band_is_mean_and_standard_deviation() -> None:
    epochs, mean, low, high = figure2.band([[1.0, 2.0, math.nan], [3.0, 2.0, 5.0]])
    assert epochs == [1, 2] and mean == [2.0, 2.0]
    assert low == pytest.approx([2 - 2**0.5, 2.0]) and high == pytest.approx([2 + 2**0.5, 2.0])


def test_figure_3_is_drawn_from_the_router() -> None:
    lines, parameters, macs = figure3.layers()
    assert parameters == 2690 and macs == 16 * 128 + 128 * 2  # supplement Fig. 3, 16 channels
    assert lines[1] == "linear 16 -> 128" and "dropout 0.4 (training only)" in lines
    assert lines[-2] == "linear 128 -> 2, bias starts at (0.1, 2.0)"


def test_every_form_of_a_table_holds_every_cell(tmp_path: Path) -> None:
    cells = [["method", "accuracy %"], ["a & b <c>", "97.10 ± 0.20"]]
    files = write_tables(tmp_path / "t", [Printed("Title 50 %", cells, ["a note"])], ["made here"])
    markdown, comma, latex, page = (file.read_bytes().decode() for file in files)
    assert "| a & b <c> | 97.10 ± 0.20 |" in markdown and "- a note" in markdown and "made here" in markdown
    assert comma == "table,method,accuracy %\r\nTitle 50 %,a & b <c>,97.10 ± 0.20\r\n"
    assert r"a \& b $<$c$>$ & 97.10 $\pm$ 0.20 \\" in latex and r"Title 50 \%" in latex
    assert "a &amp; b &lt;c&gt;" in page and "http" not in page


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tabel1"], "table1"),
        (["table1", "--scale", "huge"], "smoke"),
        (["table1", "--scale", "cpu", "--seeds", "9"], "between 1 and 3"),
        (["table1", "--reading", "a/b/c"], "path/logits/evolution"),
        (["table1", "--scale", "cpu", "--data", "digits"], "uses cifar10 and cifar100"),
        (["methods", "--scale", "smoke", "--work", "/dev/null/work"], "cannot write /dev/null/work"),
        (["figure3", "--scale", "smoke", "--finished-only", "--out", "/dev/null/out"], "cannot write /dev/null/out"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error and len(error.strip().splitlines()) == 1
