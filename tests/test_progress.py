"""A training on a terminal: a bar that moves inside an epoch, lines that fit, no bar where there is none."""

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from spnet.cli import main
from spnet.cli.progress import Bar, Lines, progress
from spnet.runs.record import EpochRow

TINY = ("--method", "static", "--backbone", "resnet8", "--subset", "64", "--batch-size", "16", "--epochs", "2")
ROW = EpochRow(phase="main", loss=1.0, probe_accuracy=50.0, cost_ratio=0.9, distinct_paths=1, seconds=0.5)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        """What it has said, a line each time one is begun anew, without what steers the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue()).replace("\r", "\n")


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called in a test, not before: pytest puts streams of its own there between the two."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return screen


def test_the_bar_moves_inside_an_epoch(monkeypatch: pytest.MonkeyPatch):
    screen = terminal(monkeypatch)
    bar = progress(4)
    assert isinstance(bar, Bar)
    try:
        for epochs in (0.0, 0.25, 1.5):
            bar.moved(epochs)
            bar.screen.refresh()
            assert screen.shown.splitlines()[-1].startswith(f"{epochs:.2f}/4 epochs "), epochs
    finally:
        bar.close()
    assert "left" in screen.shown


def test_names_in_brackets_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch):
    screen = terminal(monkeypatch)
    bar = progress(4)
    bar.note("from [bold]x[/bold]: backbone")
    bar.report(replace(ROW, epoch=1))
    bar.close()
    assert "spnet: from [bold]x[/bold]: backbone" in screen.shown
    assert "epoch   1/4 main  loss 1.0000  probe 50.00  cost 0.900  paths 1  0.5 s" in screen.shown


def test_a_training_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    screen = terminal(monkeypatch)
    assert main(["train", *TINY, "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] is True  # the bar is on stderr alone
    lines = screen.shown.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["1/2", "2/2"]
    assert lines[-1].startswith("2.00/2 epochs ")
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h") == 1  # the cursor is back


def test_a_training_that_is_refused_leaves_the_cursor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    screen = terminal(monkeypatch)
    out = tmp_path / "run"
    assert main(["train", *TINY, "--out", str(out)]) == 0
    screen.seek(0)
    screen.truncate()
    assert main(["train", *TINY, "--out", str(out)]) == 2
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h")
    assert "holds a run already" in screen.shown.splitlines()[-1]


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]):
    now = [0.0]
    lines = progress(4)
    assert isinstance(lines, Lines)
    lines = Lines(4, clock=lambda: now[0])
    for seconds, epochs in ((1, 0.01), (30, 0.2), (61, 0.51), (62, 0.52), (122, 1.0), (123, 1.01)):
        now[0] = seconds
        lines.moved(epochs)
    assert capsys.readouterr().err.splitlines() == [
        "epoch   1/4 51 % done, about 6 min 59 s left",  # 60 s for half an epoch, and 3.49 are left
        "epoch   2/4 1 % done, about 6 min 5 s left",
    ]
