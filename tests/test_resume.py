"""A run killed at any moment and resumed ends in the same bits as one that was left alone."""

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from PIL import Image

from spnet.cli import main
from spnet.files import write_text

pytestmark = pytest.mark.usefixtures("unreported")
RUN = ("--backbone", "resnet8", "--epochs", "8", "--batch-size", "256", "--precision", "fp32", "--static-share", "0.3")


def final(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def killed(folder: Path, epochs: int, delay: float, *argv: str) -> None:
    """Start `spnet train` in a process; kill -9 it `delay` seconds after its `epochs`-th line about an epoch.

    With `epochs` 0 the moment lies in the first epoch, when `folder` has just become a run.
    """
    process = forked.start("train", *argv, stderr=subprocess.PIPE)
    seen = [process.stderr.readline()]
    while len(seen) <= epochs:
        seen.append(process.stderr.readline())
        assert seen[-1], f"ended by itself: {seen}"
    while not (folder / "config.json").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.stderr.close()
    assert process.wait() == -signal.SIGKILL, f"was finished before it could be killed: {seen}"


@pytest.mark.slow
def test_kill_minus_nine_three_times(tmp_path: Path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main(["train", *RUN, "--out", str(whole)]) == 0
    assert json.loads((whole / "result.json").read_text())["train_images"] == 8 * 5 * 256

    moments = [(epochs, random.uniform(0, 0.4)) for epochs in (random.choice((0, 1)), random.choice((1, 2)), 1)]
    first, *others = moments
    killed(run, *first, *RUN, "--out", str(run))
    assert main(["eval", str(run)]) in (0, 2)  # whatever is there is whole: an epoch's network or none yet
    for moment in others:
        killed(run, *moment, "--resume", str(run))
    assert main(["train", "--resume", str(run)]) == 0, moments
    assert final(run) == final(whole), moments
    rows, expected = log(run), log(whole)
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected], moments
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.slow
def test_kill_minus_nine_in_an_epoch_of_photos(tmp_path: Path):
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for k in range(160):
            pixels = np.random.default_rng(k).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{k}.png")
    words = ("--method", "dynamic", "--data", f"photos:{tmp_path / 'photos'}?size=32", *RUN, "--batch-size", "32")
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main(["train", *words, "--out", str(whole)]) == 0
    killed(run, 1, random.uniform(0, 0.3), *words, "--out", str(run), "--workers", "2")
    assert main(["train", "--resume", str(run), "--cache-gb", "0.1"]) == 0
    assert final(run) == final(whole)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped after its second of three epochs, as a kill between two epochs leaves it."""
    from spnet import data
    from spnet.runs.config import RunConfig
    from spnet.runs.record import EpochRow
    from spnet.training.fit import fit

    folder = tmp_path_factory.mktemp("stopped")
    settings = {"epochs": 3, "batch_size": 32, "validation": 0.0, "precision": "fp32", "subset": 64}

    def keep(row: EpochRow) -> None:
        if row.epoch == 2:
            shutil.copytree(folder / "whole", folder / "run")

    fit(RunConfig("spnet", "", "resnet8", "digits", settings), data.load("digits"), folder / "whole", report=keep)
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stopped / "run", tmp_path / "run")


def test_time_limit_then_resume(stopped: Path, run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--resume", str(run), "--time-limit", "1e-9", "--json"]) == 0
    printed = capsys.readouterr()
    stopped_again = {"run": str(run), "finished": False, "epochs_done": 2, "epochs_gained": 0}
    assert json.loads(printed.out) == stopped_again
    assert "no epoch ended within --time-limit 1e-09" in printed.err and "(the last one took " in printed.err
    assert main(["train", "--resume", str(run)]) == 0
    assert final(run) == final(stopped / "whole")


def test_killed_while_a_file_was_written(stopped: Path, run: Path):
    """Between a temporary file and its renaming, in any place."""
    for leftover in (".spnet-1-0123abcd.tmp", "state/.spnet-1-0123abce.tmp", "events/.spnet-12-0123abcf.tmp"):
        (run / leftover).write_bytes(b"half")
    assert main(["train", "--resume", str(run)]) == 0
    assert final(run) == final(stopped / "whole")
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]


def test_killed_between_the_files_of_an_epoch(stopped: Path, run: Path):
    """Log and network are of the epoch after the one the resume state speaks of."""
    for name in ("metrics.jsonl", "model.safetensors"):
        shutil.copy(stopped / "whole" / name, run / name)
    assert main(["train", "--resume", str(run)]) == 0
    assert final(run) == final(stopped / "whole")
    rows, expected = log(run), log(stopped / "whole")
    for row in (*rows, *expected):
        del row["seconds"], row["time"]
    assert rows == expected and rows[-1]["flips"] is not None


def test_killed_after_the_last_epoch(stopped: Path, tmp_path: Path):
    """All epochs are done, the result is not written yet: it is made again, and is the same."""
    run = shutil.copytree(stopped / "whole", tmp_path / "run")
    expected = json.loads((run / "result.json").read_text())
    (run / "result.json").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    result = json.loads((run / "result.json").read_text())
    for record in (result, expected):
        del record["last"]["images_per_second"], record["final"]["images_per_second"], record["made_with"]
    assert result == expected and final(run) == final(stopped / "whole")


def test_a_cut_or_missing_log_is_written_again(stopped: Path, run: Path):
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text[:-30])
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "metrics.jsonl").read_text().startswith(text)
    (run / "metrics.jsonl").unlink()
    assert main(["train", "--resume", str(run)]) == 0  # finished: the result stands
    assert final(run) == final(stopped / "whole")


def test_resumed_state_holds_everything(run: Path):
    state = torch.load(run / "state" / "resume.pt", weights_only=True)
    assert state["epoch"] == 2 and len(state["rows"]) == 2
    assert state["optimizer"]["state"] and state["previous_decisions"].shape == (64, 3)
    assert any(name.startswith("auxiliary.net.router.") for name in state["method"])


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "first")

    def die(_: Path) -> None:
        raise RuntimeError("killed while writing")

    from spnet.files import write_atomically

    with pytest.raises(RuntimeError):
        write_atomically(path, die)
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]
    write_text(path, "second")
    assert path.read_text() == "second"
