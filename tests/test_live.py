"""A list of runs while it runs: what is expected of the rest, the live table, the lines, nothing on stdout."""

import io
import json
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from spnet.cli.live import HEAD, _table, live, rows, state
from spnet.jobs.board import Board, kind
from spnet.jobs.runner import run_all
from spnet.runs.config import RunConfig


def run_of(seed: int, backbone: str = "resnet8", method: str = "static") -> RunConfig:
    return RunConfig(method, "", backbone, "cifar10:/data", {"seed": seed})


SMALL, LARGE = [run_of(seed) for seed in range(3)], [run_of(seed, "resnet20", "spnet") for seed in range(2)]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    """The clock stands still."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    return 1000.0


def board(**more: object) -> Board:
    return Board([*SMALL, *LARGE], **more)  # type: ignore[arg-type]


# Time left


def test_time_left_weighs_runs_by_their_kind() -> None:
    assert kind(LARGE[0]) == "spnet resnet20 cifar10"
    assert board().seconds_left is None
    known = {kind(SMALL[0]): [8.0, 12.0], kind(LARGE[0]): [100.0]}
    assert board(recorded=known).seconds_left == pytest.approx(3 * 10 + 2 * 100)
    some = board(recorded=known, finished=[SMALL[0].hash, LARGE[0].hash], failed={SMALL[1].hash: "why"})
    assert some.seconds_left == pytest.approx(10 + 100)
    assert board(finished=[run.hash for run in (*SMALL, *LARGE)]).seconds_left == 0.0


def test_a_kind_nobody_has_run_takes_the_mean_of_the_others() -> None:
    assert board(recorded={kind(SMALL[0]): [8.0, 12.0]}).seconds_left == pytest.approx(5 * 10)


def test_times_of_this_call_outweigh_those_of_records() -> None:
    kinds = kind(SMALL[0]), kind(LARGE[0])
    ours = board(recorded={kinds[0]: [10.0], kinds[1]: [100.0]}, measured={kinds[0]: [40.0]})
    assert ours.seconds_left == pytest.approx(3 * 40 + 2 * 100)


def test_workers_share_but_the_longest_run_is_waited_for() -> None:
    known = {kind(SMALL[0]): [10.0], kind(LARGE[0]): [100.0]}
    assert board(recorded=known, workers=2).seconds_left == pytest.approx(230 / 2)
    assert board(recorded=known, workers=5).seconds_left == pytest.approx(100)


def test_what_a_run_has_done_is_not_waited_for(now: float) -> None:
    begun = {LARGE[0].hash: now - 30, SMALL[0].hash: now - 500}
    ours = board(recorded={kind(SMALL[0]): [10.0], kind(LARGE[0]): [100.0]}, running=begun)
    assert ours.seconds_left == pytest.approx(0 + 10 + 10 + 70 + 100)


# What is shown


def test_a_row_for_every_kind(now: float) -> None:
    ours = board(
        finished=[SMALL[0].hash],
        running={SMALL[1].hash: now - 20, LARGE[1].hash: now - 90},
        failed={LARGE[0].hash: "why"},
        recorded={kind(SMALL[0]): [41.0]},
    )
    assert rows(ours) == [
        ["static resnet8 cifar10", "1/3", "41 s", "20 s", ""],
        ["spnet resnet20 cifar10", "0/2", "41 s", "1 min 30 s", "1"],
    ]
    assert state(ours) == "1/5 done, 2 running, 1 failed"
    text = io.StringIO()
    Console(file=text, width=100).print(_table(ours))
    shown = text.getvalue()
    assert all(word in shown for word in (*HEAD, "spnet resnet20 cifar10", "1 min 30 s", "1/5 done", "left"))


class Instant:
    """A training that is over when it is looked at for the second time."""

    def __init__(self, config: RunConfig, folder: Path, threads: int) -> None:
        folder.mkdir(parents=True)
        record = {"hash": config.hash, "train_seconds": 25.0}
        (folder / "result.json").write_text(json.dumps(record))
        self.looks = 0

    def poll(self) -> int | None:
        self.looks += 1
        return 0 if self.looks > 1 else None

    def stop(self) -> None: ...


def test_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"results": tmp_path / "results", "work": tmp_path / "work", "launch": Instant, "pause": 0}
    with live() as show:
        run_all(SMALL[:1], **places, show=show)
    capsys.readouterr()
    with live() as show:
        done = run_all(SMALL, **places, show=show)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split(maxsplit=1)[1] for line in printed.err.splitlines()] == [
        "1/3 done, 1 running, 0 failed, about 50 s left",
        "2/3 done, 0 running, 0 failed, about 25 s left",
        "2/3 done, 1 running, 0 failed, about 25 s left",
        "3/3 done, 0 running, 0 failed",
    ]
    assert done.measured == {kind(SMALL[0]): [25.0, 25.0]} and done.recorded == {kind(SMALL[0]): [25.0]}


def test_a_table_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with live() as show:
        run_all(SMALL, results=tmp_path / "results", work=tmp_path / "work", launch=Instant, pause=0, show=show)
    assert "static resnet8 cifar10" in screen.getvalue() and "3/3 done" in screen.getvalue()
    assert capsys.readouterr().out == ""
