"""Lists of runs: never trained twice, safe to kill, the same table afterwards."""

import json
import math
import multiprocessing
import shutil
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from spnet import reproduction
from spnet.cli import main
from spnet.files import write_json
from spnet.jobs.runner import run_all, unique
from spnet.report.tables import comma_separated, markdown
from spnet.reproduction.lines import Row, collect
from spnet.reproduction.plan import FITTING, Plan
from spnet.reproduction.remarks import beaten_by_static, made_differently, missed
from spnet.reproduction.scales import SCALES
from spnet.reproduction.stability import _own_flips
from spnet.reproduction.statistics import paired_difference, summary
from spnet.reproduction.table import table
from spnet.reproduction.table2 import _by_recipe
from spnet.reproduction.table3 import _gains
from spnet.runs.config import RunConfig
from spnet.runs.record import Curves, RunResult

OURS = Path(__file__).parent.parent / "results"
TINY = {"epochs": 2, "batch_size": 128, "validation": 0.0, "subset": 256}


def tiny(seed: int, **settings: object) -> RunConfig:
    return RunConfig("dynamic", "", "resnet8", "digits", {**TINY, "seed": seed, **settings})


class FakeJob:
    """A training that ends at once, writing the least a result needs."""

    def __init__(self, config: RunConfig, folder: Path, code: int) -> None:
        self.code = code
        if code == 0:
            folder.mkdir(parents=True)
            (folder / "result.json").write_text(json.dumps({"hash": config.hash}))

    def poll(self) -> int:
        return self.code

    def stop(self) -> None: ...


def test_equal_configs_have_equal_names_and_a_path_does_not_count() -> None:
    assert tiny(0).hash == tiny(0).hash != tiny(1).hash
    here, there = (RunConfig("static", "", "resnet8", f"cifar10:/somewhere/{place}") for place in "ab")
    assert here.hash == there.hash
    # A setting at its default names the same run as leaving it out, so new settings do not rename old runs.
    assert tiny(0, tau=1.0).hash == tiny(0).hash != tiny(0, tau=2.0).hash
    assert len(unique([tiny(0), tiny(0), tiny(1)])) == 2


def test_finished_runs_are_not_run_again_and_failures_are_kept(tmp_path: Path) -> None:
    launched: list[str] = []

    def launch(config: RunConfig, folder: Path, threads: int) -> FakeJob:
        launched.append(config.hash)
        return FakeJob(config, folder, code=1 if config.training.seed == 1 else 0)

    runs = [tiny(seed) for seed in (0, 1, 2)]
    board = run_all(runs, results=tmp_path / "results", work=tmp_path / "work", launch=launch, pause=0)
    assert len(launched) == 3 and list(board.failed) == [runs[1].hash]
    assert sorted(board.finished) == sorted([runs[0].hash, runs[2].hash])
    launched.clear()
    run_all(runs, results=tmp_path / "results", work=tmp_path / "work", launch=launch, pause=0)
    assert launched == [runs[1].hash]


def test_a_time_limit_stops_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    stopped: list[str] = []

    class Endless(FakeJob):
        def __init__(self, config: RunConfig) -> None:
            self.config = config

        def poll(self) -> None: ...

        def stop(self) -> None:
            stopped.append(self.config.hash)

    runs = [tiny(seed) for seed in (0, 1, 2)]
    board = run_all(
        runs,
        results=tmp_path / "results",
        work=tmp_path / "work",
        workers=2,
        launch=lambda config, folder, threads: Endless(config),  # type: ignore[arg-type,return-value]
        pause=0,
        time_limit=0,
    )
    assert stopped == [run.hash for run in runs[:2]]
    assert not board.finished and not board.failed


@pytest.mark.slow
def test_a_killed_runner_ends_in_the_same_records(tmp_path: Path) -> None:
    """As those of a runner that trains in its own process. What starts the others is forked from this one."""
    runs = [tiny(0, epochs=1), tiny(1, epochs=3)]

    def go(root: Path, workers: int = 1) -> int:
        return len(run_all(runs, results=root / "results", work=root / "work", workers=workers, pause=0.05).failed)

    def start(root: Path) -> BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(go(root)))
        process.start()
        return process

    def records(root: Path) -> list[dict]:
        return [json.loads((root / "results" / f"{run.hash}.json").read_text()) for run in runs]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed)
    while not (killed / "work" / runs[1].hash / "metrics.jsonl").is_file():  # the first is done, the second under way
        assert process.exitcode is None
        time.sleep(0.02)
    process.kill()
    process.join()
    first = killed / "results" / f"{runs[0].hash}.json"
    stamp = first.stat().st_mtime_ns
    time.sleep(0.5)  # the orphaned worker notices and ends
    assert go(killed) == 0
    assert first.stat().st_mtime_ns == stamp, "a finished run was run again"
    assert go(whole, workers=0) == 0
    for ours, theirs in zip(records(killed), records(whole), strict=True):
        assert ours["final"]["accuracy"] == theirs["final"]["accuracy"] and ours["curves"] == theirs["curves"]


def test_summary_and_paired_difference() -> None:
    assert summary([1.0, 2.0, 3.0]).std == pytest.approx(1.0)
    assert str(summary([2.0])) == "2.00"
    difference = paired_difference({0: 3.0, 1: 5.0, 2: 1.0}, {0: 2.0, 1: 3.0})
    assert difference is not None and difference.n == 2 and difference.mean == 1.5
    assert difference.half == pytest.approx(12.706 * 0.70711 / 2**0.5, rel=1e-3)  # t quantile of one degree of freedom
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_a_bare_machine_has_no_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert str(paired_difference({0: 2.0, 1: 3.0}, {0: 1.0, 1: 1.0})) == "+1.50"


def test_table_says_n_and_leaves_unfinished_rows_out(tmp_path: Path) -> None:
    run = tiny(0)
    figures = {
        "accuracy": 90.0, "macs_mean": 5e5, "macs_static": 1_000_000, "accuracy_shuffled_paths": 88.0,
        "accuracy_fixed_path": 89.0, "cost_ratio_fixed_path": 0.52, "distinct_paths": 3, "evolution_kl": 0.1,
    }  # fmt: skip
    record = {"label": "dynamic", "last": figures, "end_of_training": {"flips": 0.01}, "train_seconds": 3.0}
    record["made_with"] = {"hardware": "a machine", "precision": "fp32"}
    (tmp_path / f"{run.hash}.json").write_text(json.dumps(record))
    rows = [Row("a", (run, tiny(1))), Row("b", (tiny(2),)), Row("c", (run,), 0.5)]
    cells = table(collect(rows, tmp_path), baseline="a")
    assert [row[:3] for row in cells[1:]] == [["a", "1", "90.00"], ["b", "0", ""], ["c", "0", ""]]
    assert cells[1][6] == "89.00 at 52" and set(cells[2][2:]) == {""}
    assert cells[0][4:6] == ["shuffled %", "own over shuffled"] and cells[1][4:6] == ["88.00", "+2.00"]
    assert "50.0" in cells[1] and "0.001" in cells[1]
    static = {**record, "label": "static", "last": {**figures, "accuracy": 91.0, "macs_mean": 4e5}}
    small = RunConfig("static", "", "resnet8", "digits", {**TINY, "seed": 0})
    (tmp_path / f"{small.hash}.json").write_text(json.dumps(static))
    ladder = [Row("small", (small,)), rows[0]]
    assert [row[9] for row in table(collect(ladder, tmp_path), baseline="small")[1:]] == ["40.0", "50.0"]
    assert beaten_by_static(collect(ladder, tmp_path)) == [
        "Matched or beaten in mean accuracy by a static network that costs no more (small): a."
    ]
    # While the baseline has no run, 100 % is the largest network there is.
    assert [row[9] for row in table(collect(ladder, tmp_path), baseline="not trained")[1:]] == ["40.0", "50.0"]
    assert markdown(cells).count("\n") == 5 and comma_separated(cells).startswith("method,n,")


def written(folder: Path, run: RunConfig, accuracy: float, precision: str = "fp32", cost: float = 0.5) -> RunConfig:
    """A record of the run: a share of 100 MACs."""
    figures = {"accuracy": accuracy, "macs_mean": 100 * cost, "macs_static": 100, "cost_ratio": cost}
    made = {"hardware": "a machine", "precision": precision}
    record = {"label": run.label, "last": figures, "end_of_training": {}, "train_seconds": 3.0, "made_with": made}
    (folder / f"{run.hash}.json").write_text(json.dumps(record))
    return run


def test_rivals_are_compared_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    """The static network is better on a seed that the dynamic one has not run: that says nothing."""
    rungs = [RunConfig("static", "", "resnet8", "digits", {**TINY, "seed": seed}) for seed in (0, 1)]
    static = Row(
        "small", tuple(written(tmp_path, run, accuracy) for run, accuracy in zip(rungs, (90, 99), strict=True))
    )
    for accuracy, beaten in ((91.0, False), (90.0, True), (89.0, True)):
        dynamic = Row("a", (written(tmp_path, tiny(0), accuracy), tiny(1)))
        assert bool(beaten_by_static(collect([static, dynamic], tmp_path))) == beaten


def test_a_gain_is_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    runs = [tiny(0), tiny(1), RunConfig("dynamic", "spnet", "resnet8", "digits", {**TINY, "seed": 1})]
    without, both, with_spnet = (written(tmp_path, run, a) for run, a in zip(runs, (10.0, 90.0, 91.5), strict=True))
    rows = [Row("a at 0.5", (without, both)), Row("a + spnet at 0.5", (with_spnet,))]
    assert _gains(collect(rows, tmp_path), None)[1][:6] == ["a", "0.5", "1", "90.00", "91.50", "(+1.50)"]


def test_a_method_has_one_row_and_a_column_for_each_recipe(tmp_path: Path) -> None:
    """The method's own recipe has not been run."""
    runs = tuple(written(tmp_path, tiny(seed), accuracy, cost=0.79) for seed, accuracy in enumerate((90.0, 92.0)))
    lines = collect([Row("a (common)", runs, paper="95.09"), Row("a (own)", (tiny(5),), paper="95.09")], tmp_path)
    assert _by_recipe(lines, None)[1] == ["a", "91.00 ± 1.41", "2", "", "0", "79.0", "", "95.09"]


def test_a_row_that_misses_its_budget_says_so(tmp_path: Path) -> None:
    row = Row("a", (written(tmp_path, tiny(0), 90.0), tiny(1)), 0.5)
    lines = collect([row, Row("b", (tiny(0),))], tmp_path)
    assert missed(lines) == ["a: 1 of 1 runs cannot be brought to this cost and are left out."]
    assert [len(line.figures) for line in lines] == [0, 1]


def test_a_table_says_which_rows_another_machine_made(tmp_path: Path) -> None:
    for seed in range(4):
        written(tmp_path, tiny(seed), 90.0, "bf16" if seed > 1 else "fp32")
    rows = [Row("a", (tiny(0),)), Row("b", (tiny(1), tiny(2))), Row("c", (tiny(3),)), Row("c as well", (tiny(3),))]
    assert made_differently(collect(rows[:1], tmp_path)) == []
    assert made_differently(collect(rows, tmp_path)) == [
        "Made on a machine in bf16: b (1 of 2), c.",
        "Made on a machine in fp32: a, b (1 of 2).",
    ]


def test_flips_are_those_of_a_methods_own_decisions(tmp_path: Path) -> None:
    """Neither a warm-up's nor the jump where a phase begins."""
    phases = ["uniform", "uniform", "routers", "routers", "routers", "finetune", "finetune"]
    flips = (math.nan, 0.9, 0.5, 0.2, math.nan, 0.4, 0.1)
    assert _own_flips(RunResult(curves=Curves(tuple(phases), flips=flips)), {"uniform"}) == [0.2, 0.1]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Records of all runs that the budgets of scale smoke are read from, taken from our own."""
    scale = SCALES["smoke"]
    ours = json.loads(
        next(file for file in sorted(OURS.glob("*.json")) if "calibrated" in file.read_text()).read_text()
    )
    for run in reproduction.runs("budgets", Plan(scale, scale.seeds, {}, FITTING, "")):
        write_json(tmp_path / "kept" / f"{run.hash}.json", {**ours, "hash": run.hash, "config": run.to_json()})
    return tmp_path / "kept"


def without(record: dict, *path: str) -> None:
    *inner, last = path
    for name in inner:
        record = record[name]
    del record[last]


DAMAGED = {
    "'calibrated' is of the wrong kind": lambda record: record.update(calibrated="x"),
    "'last/accuracy' is of the wrong kind": lambda record: record["last"].update(accuracy="high"),
    "'last' cannot be": lambda record: without(record, "last"),
    "'last/accuracy' cannot be": lambda record: without(record, "last", "accuracy"),
    "'last/macs_static' cannot be": lambda record: record["last"].update(macs_static=0),
    "'calibrated/accuracy_fixed_path' cannot be": lambda record: without(record, "calibrated", "accuracy_fixed_path"),
    "'made_with/hardware' cannot be": lambda record: without(record, "made_with", "hardware"),
    "'curves' cannot be": lambda record: record.update(curves=None),
    "another run's record": lambda record: record.update(hash="000000000000"),
}


@pytest.mark.parametrize("words", DAMAGED)
def test_damaged_records_make_no_table(words: str, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    argv = ["reproduce", "budgets", "--scale", "smoke", "--finished-only", "--results", str(kept), "--out", str(out)]
    assert main(argv) == 0
    shutil.rmtree(out)
    capsys.readouterr()
    file = sorted(kept.glob("*.json"))[0]
    record = json.loads(file.read_text())
    DAMAGED[words](record)
    file.write_text(json.dumps(record))
    assert main(argv) == 2 and not out.exists()
    printed, line = capsys.readouterr()
    assert printed == "" and line.startswith(f"spnet: {file} is ") and words in line and line.count("\n") == 1
