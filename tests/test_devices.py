"""Several processes train one network: they share each batch, and only the first one writes and speaks."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spnet import create_model
from spnet.cli import main
from spnet.data import Split
from spnet.methods.base import Batch, Losses, Optimizer, Phase, Step
from spnet.network.dynamic import DynamicNetwork
from spnet.network.sampling import AllRun
from spnet.training import devices
from spnet.training import step as training_step
from spnet.training.devices import MeanOverProcesses
from spnet.training.epoch import train_epoch
from spnet.training.schedule import build_optimizer
from spnet.training.streams import Streams

CPU = torch.device("cpu")


def seen_by(rank: int, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The labels that process `rank` of two gets, batch by batch; labels number the images."""
    monkeypatch.setattr(training_step, "average_gradients", lambda parameters, world_size: None)
    net = create_model("resnet8", "static", in_channels=1, image_size=8)
    batches: list[list[int]] = []

    def objective(net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        batches.append(batch.labels.tolist())
        assert step.world_size == 2  # what rates and sums over a batch need to know
        assert isinstance(step.reduce, MeanOverProcesses) and step.reduce.world_size == 2
        trace = net(batch.images, sampler=step.phase.sampler)
        return Losses({"size": trace.logits.square().mean()}, trace)

    phase = Phase("static", 1, objective, AllRun())
    optimizer = Optimizer()
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    train_epoch(
        net,
        build_optimizer(optimizer, list(net.parameters())),
        phase,
        optimizer,
        Split(images, torch.arange(20)),
        batch_size=8,
        augmentation=None,
        streams=Streams(0, 0, CPU, rank),
        epoch_in_phase=0,
        precision="fp32",
        rank=rank,
        world_size=2,
    )
    return batches


def test_processes_share_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (seen_by(rank, monkeypatch) for rank in (0, 1))
    assert [len(part) for part in (*first, *second)] == [4, 4, 4, 4]
    everything = [image for part in (*first, *second) for image in part]
    assert len(set(everything)) == 16  # of twenty images two batches of eight, none twice


def test_processes_share_the_order_and_no_noise() -> None:
    one, other = (Streams(3, 1, CPU, rank) for rank in (0, 1))

    def drawn(generator: torch.Generator | None) -> Tensor:
        return torch.rand(4, generator=generator)

    assert torch.equal(drawn(one.order), drawn(other.order))
    assert not torch.equal(drawn(one.augmentation), drawn(other.augmentation))
    assert not torch.equal(drawn(one.student.gates), drawn(other.student.gates))


def test_two_processes_make_one_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = "--method convnet-aig --backbone resnet8 --subset 64 --batch-size 32 --epochs 2 --devices 2 --json"
    done = subprocess.run(
        [sys.executable, "-m", "spnet", "train", *flags.split(), "--out", str(run)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # one object, of the first process
    assert result["train_images"] == 2 * 64
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert (run / "report.html").is_file()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch-size", "31"], "batch_size 31 cannot be shared by 2 processes"),
        (["--batch-size", "2"], "batch_size 2 cannot be shared by 2 processes"),
        (["--batch-size", "30", "--time-limit", "60"], "needs one process"),
        (["--budget", "0.5", "--method", "static"], "a static network has no decisions to calibrate"),
        (["--batch-size", "128"], "batch_size 128 is larger than the 58 training images"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_a_process_starts(
    flags: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    out = tmp_path / "deep" / "run"
    small = ["train", "--backbone", "resnet8", "--subset", "64", "--validation", "0.1", "--devices", "2"]
    assert main([*small, *flags, "--out", str(out)]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_more_processes_than_the_machine_has_cores_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--devices", "6400"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("spnet: --devices 6400: one process each, and ") and "take at most" in line


def test_a_taken_folder_is_refused_once(tmp_path: Path, trained: Path) -> None:
    """By real processes: nothing comes after the one line."""
    done = subprocess.run(
        [sys.executable, "-m", "spnet", "train", "--devices", "2", "--out", str(trained)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"spnet: {trained} holds a run already")
    assert "Traceback" not in done.stderr and done.stderr.count("spnet: ") == 1


def test_a_process_that_is_killed_ends_the_run_in_one_line(tmp_path: Path) -> None:
    """The others do not wait for it, and what was trained can be continued with one process."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "spnet", "train", "--backbone", "resnet8", "--subset", "64", "--batch-size", "32"]
    leader = subprocess.Popen(
        [*command, "--epochs", "100000", "--devices", "2", "--out", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert leader.stderr is not None
    while "epoch" not in (line := leader.stderr.readline()):
        assert line, "ended by itself"
    task = Path(f"/proc/{leader.pid}/task/{leader.pid}/children")
    if not task.is_file():
        leader.kill()
        pytest.skip("this system does not list a process's children")
    for child in map(int, task.read_text().split()):
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(child, signal.SIGKILL)
    out, err = leader.communicate(timeout=120)
    assert leader.returncode == 2 and out == ""
    last = err.splitlines()[-1]
    assert last.startswith("spnet: process 2 of 2 ended") and "Traceback" not in err
    assert main(["train", "--resume", str(run), "--time-limit", "1e-9"]) == 0


def test_a_batch_job_of_one_task_trains_with_two_processes(tmp_path: Path) -> None:
    """What a cluster's job sets in the environment does not matter."""
    job = {
        "SLURM_NTASKS": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_JOB_NAME": "train",
    }
    flags = "--method static --backbone resnet8 --subset 64 --batch-size 32 --epochs 1 --devices 2"
    done = subprocess.run(
        [sys.executable, "-m", "spnet", "train", *flags.split(), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env={**os.environ, **job},
    )
    assert done.returncode == 0, done.stderr
