"""`spnet reproduce contenders`: the cascades beside the rows, and who wins at each budget."""

from dataclasses import replace
from pathlib import Path

import pytest

from spnet.cli import main
from spnet.errors import UserError
from spnet.files import write_json
from spnet.jobs.runner import write_result
from spnet.reproduction import cascades
from spnet.reproduction.cascades import CascadeRecord
from spnet.reproduction.contenders import best, pairs, sections
from spnet.reproduction.milliseconds import read
from spnet.reproduction.plan import Plan
from spnet.reproduction.scales import SCALES
from spnet.runs.forms import to_json
from spnet.runs.record import Evaluation, MemberFigures, RunResult

DIGITS = Plan(SCALES["digits"], (0,))
FULL = 1000


def finish(results: Path, name: str, **at: float) -> None:
    """A record for the row's run: accuracy by budget (`at_100`: as trained), its cost just the budget's."""
    run = next(row.runs[0] for row in sections(DIGITS)[0].rows if row.name.split(" at ")[0] == name)
    made = {
        int(key[3:]) / 100: Evaluation(450, macs_mean=10.0 * int(key[3:]), macs_static=FULL, accuracy=accuracy)
        for key, accuracy in at.items()
    }
    budgets = tuple(replace(figures, budget=budget) for budget, figures in made.items())
    write_result(results / f"{run.hash}.json", RunResult(run.hash, last=next(iter(made.values())), budgets=budgets))


def test_the_ladder_comes_before_itself_and_before_the_dynamic_contenders() -> None:
    assert [pair.name for pair in pairs(DIGITS)] == [
        "resnet8 + resnet14",
        "resnet8 + resnet20",
        "resnet14 + resnet20",
        "resnet8 + dynamic",
        "resnet8 + spnet",
    ]
    assert all(small.method == "static" for small, _ in (pair.members for pair in pairs(DIGITS)))


def test_the_best_of_each_kind_at_each_budget(tmp_path: Path) -> None:
    finish(tmp_path, "static resnet8", at_30=90.0)
    finish(tmp_path, "static resnet20", at_100=99.0)
    finish(tmp_path, "spnet", at_70=97.0, at_50=93.0)
    pair = next(pair for pair in pairs(DIGITS) if pair.name == "resnet8 + resnet20")
    figures = Evaluation(
        450, macs_mean=505.0, accuracy=98.0, budget=0.5, members=(MemberFigures(share=0.6), MemberFigures())
    )
    missed = Evaluation(budget=0.7, missed="out of reach")
    write_json(pair.file(tmp_path), to_json(CascadeRecord(pair.name, FULL, 9, (figures, missed))))
    head, *rows = best(DIGITS, tmp_path)
    assert head[1:] == [
        "static network",
        "dynamic network",
        "cascade of static networks",
        "static network, then a dynamic one",
    ]
    large, routed = "99.00 % at 100 %: static resnet20", "97.00 % at 70 %: spnet"
    both = "98.00 % at 50 %: resnet8 + resnet20"
    small, cheaper = "90.00 % at 30 %: static resnet8", "93.00 % at 50 %: spnet"
    assert rows == [
        ["100 %", large, routed, both, "not run"],
        ["70 %", small, routed, both, "not run"],
        ["50 %", small, cheaper, both, "not run"],
    ]
    table = cascades.table(pairs(DIGITS), DIGITS, tmp_path)
    assert [row[:4] for row in table if row[0].startswith("resnet8 + resnet20")] == [
        ["resnet8 + resnet20 at 0.5", "1", "98.00", "50"]
    ]
    assert ["resnet8 + spnet at 0.7", "0", *[""] * 8] in table
    pair.file(tmp_path).write_text('{"asked": 3}')
    with pytest.raises(UserError, match="is damaged"):
        best(DIGITS, tmp_path)


@pytest.mark.slow
def test_cascades_are_evaluated_once_and_stand_beside_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ladder of two at scale smoke: the pair's record is made from the kept weights, and read the next time."""
    monkeypatch.setitem(SCALES, "smoke", replace(SCALES["smoke"], ladder=("resnet8", "resnet14"), backbone="resnet14"))
    command = ["reproduce", "contenders", "--scale", "smoke", "--workers", "0"]
    command += [f"--{name}={tmp_path / name}" for name in ("out", "results", "work")]
    plan = Plan(SCALES["smoke"], (0,))
    kept = {run.hash for pair in pairs(plan) for run in pair.members}
    monkeypatch.setattr("spnet.reproduction.contenders.OTHERS", ())
    monkeypatch.setattr("spnet.reproduction.contenders.PARTS", ())
    monkeypatch.setattr("spnet.reproduction.milliseconds.IMAGES", 3)
    assert main([*command, "--time"]) == 0
    made = sorted((tmp_path / "results" / "cascades").iterdir())
    assert len(made) == len(pairs(plan)) == len(kept) - 1
    page = (tmp_path / "out" / "contenders.md").read_text()
    assert "resnet8 + resnet14 at 0.79" in page and "not run" not in page
    assert (tmp_path / "out" / "contenders.svg").is_file()
    record = pairs(plan)[0].record(tmp_path / "results")
    assert record is not None and (at := record.at(0.79)) is not None
    assert at.macs_mean <= 0.85 * record.macs_full and at.members[0].cost_alone < 1
    timed = read(plan, tmp_path / "results")
    assert {"static resnet14", "dynamic at 0.5", "resnet8 + resnet14 at 0.79"} <= {row.name for row in timed.rows}
    assert timed.images == 3 and all(row.ms > 0 for row in timed.rows)
    assert "## Milliseconds on digits" in page and " ms: static resnet" in page
    before = made[0].read_bytes()
    assert main([*command, "--finished-only"]) == 0
    assert made[0].read_bytes() == before
