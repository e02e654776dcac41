"""Several processes train one network: they share each batch, and only the first one writes and speaks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spnet import create_model
from spnet.cli import main
from spnet.data import Split
from spnet.dynamic import DynamicNetwork
from spnet.methods.base import Batch, Losses, Optimizer, Phase, Step
from spnet.paths.sampling import AllRun
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


def test_a_batch_that_cannot_be_shared_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from spnet.training import fit
    from spnet.training.devices import Place

    monkeypatch.setattr(fit, "take_place", lambda devices: Place(CPU, 0, devices))
    small = ["train", "--backbone", "resnet8", "--subset", "64", "--out", str(tmp_path / "run"), "--devices", "3"]
    assert main([*small, "--batch-size", "32"]) == 2
    assert "cannot be shared by 3 processes" in capsys.readouterr().err
    assert main([*small, "--batch-size", "30", "--time-limit", "60"]) == 2
    assert "needs one process" in capsys.readouterr().err
