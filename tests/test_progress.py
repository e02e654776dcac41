"""Long work on a terminal: a bar that says what is left, and is gone at the end; elsewhere a line a minute at most."""

import contextlib
import io
import json
import math
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from spnet.cli import main
from spnet.cli.counting import Bars, Lines, listener
from spnet.cli.epochs import line
from spnet.progress import counted, listening, work
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


def test_a_bar_for_everything_under_way(monkeypatch: pytest.MonkeyPatch):
    screen = terminal(monkeypatch)
    monkeypatch.setattr("spnet.cli.counting.REDRAWN", 0.0)
    bars = listener()
    assert isinstance(bars, Bars)
    with listening(bars):
        with work("epochs", 4) as reached:
            for done, shown in ((0.25, "0.25/4 epochs "), (1, "1/4 epochs "), (1.5, "1.50/4 epochs ")):
                reached(done)
                assert screen.shown.splitlines()[-1].startswith(shown)
            for image in counted(range(1990, 2000), "[b]images[/b]", 10):
                last = screen.shown.splitlines()[-2:]
                assert last[0].startswith("1.50/4 epochs ") and last[1].startswith(f"{image - 1990}/10 [b]images[/b] ")
            reached(2)
            assert screen.shown.splitlines()[-1].startswith("2/4 epochs ")
        assert screen.shown.count("10/10 [b]images[/b]") == 1, "done and gone"
        assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h") == 1
        list(counted("ab", "again", 2))
    assert "2/2 again" in screen.shown and "left" in screen.shown


def test_work_that_fails_takes_its_bar_away(monkeypatch: pytest.MonkeyPatch):
    screen = terminal(monkeypatch)
    with listening(listener()), pytest.raises(ValueError), work("epochs", 4):
        for _ in counted("ab", "letters", 2):
            raise ValueError
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h") == 1


def test_names_in_brackets_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch):
    screen = terminal(monkeypatch)
    bars = listener()
    with listening(bars), work("epochs", 4):
        bars.say("spnet: from [bold]x[/bold]: backbone")
        bars.say(line(replace(ROW, epoch=1), 4))
    assert "spnet: from [bold]x[/bold]: backbone" in screen.shown
    assert "epoch   1/4 main  loss 1.0000  probe 50.00  cost 0.900  paths 1  0.5 s" in screen.shown


def test_nobody_hears_of_it_unless_asked(capsys: pytest.CaptureFixture[str]):
    assert list(counted("ab", "letters", 2)) == ["a", "b"]
    heard = []
    with listening(lambda under_way: heard.append([(each.what, each.done, each.total) for each in under_way])):
        assert list(counted([2, 3], "images", 5, int)) == [2, 3]
    assert heard == [[("images", n, 5)] for n in (0, 2, 5)] + [[]]
    assert list(counted("ab", "letters", 2)) == ["a", "b"] and len(heard) == 4
    assert capsys.readouterr() == ("", "")


def test_a_training_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    screen = terminal(monkeypatch)
    assert main(["train", *TINY, "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] is True  # the bar is on stderr alone
    lines = screen.shown.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["1/2", "2/2"]
    assert any(line.startswith("2/2 epochs ") for line in lines)
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h") > 0  # the cursor is back


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
    assert isinstance(listener(), Lines)
    now = [0.0]
    lines = Lines(clock=lambda: now[0])
    with listening(lines), work("photos", 1500, done=300) as reached:
        for seconds, done in ((1, 400), (30, 500), (61, 600), (62, 601)):
            now[0] = seconds
            reached(done)
        lines.say("something else")
        for seconds, done in ((121, 900), (123, 1000)):
            now[0] = seconds
            reached(done)
    assert capsys.readouterr().err.splitlines() == [
        "300/1,500 photos are done already",
        "600/1,500 photos, about 4 min 30 s left",  # 60 s for 200, and 900 are left
        "something else",
        "1,000/1,500 photos, about 1 min 42 s left",
    ]


SHORT = {
    "evaluation": (("eval",), "450/450 images"),
    "sweep": (("eval", "--sweep"), "2/2 points"),
    "calibration": (("eval", "--budget", "0.8"), "/1,347 images"),
    "export": (("export", "FILE"), "images compared"),
}


@pytest.mark.parametrize("verb", SHORT)
def test_a_command_says_how_far_it_is_on_a_terminal_alone(
    verb: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (name, *rest), shown = SHORT[verb]
    argv = [name, str(trained), *(str(tmp_path / "net.onnx") if word == "FILE" else word for word in rest), "--json"]
    monkeypatch.setattr("spnet.cli.counting.SILENCE", math.inf)  # however busy the machine is
    monkeypatch.setattr("spnet.inference.sweep.BUDGETS", (0.7,))
    monkeypatch.setattr("spnet.inference.sweep.CONFIDENCES", ())
    assert main(argv) == 0
    piped = capsys.readouterr()
    assert piped.err == "" and piped.out.count("\n") == 1 and json.loads(piped.out)
    screen = terminal(monkeypatch)
    monkeypatch.setattr("spnet.cli.counting.REDRAWN", 0.0)
    assert main(argv) == 0
    assert shown in screen.shown and "left" in screen.shown
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h") > 0
    assert set(json.loads(capsys.readouterr().out)) == set(json.loads(piped.out))


def test_a_real_terminal(trained: Path):
    """stderr is one, stdout is piped: bars there, the result alone here."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "spnet", "eval", str(trained), "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # what a terminal says when nobody writes there any more
        while part := os.read(ours, 1 << 16):
            said += part
    os.close(ours)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and json.loads(out)["n"] == 450
    assert "450/450 images" in said.decode() and said.endswith(b"\x1b[2K"), "the last line is wiped"
