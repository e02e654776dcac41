"""Several processes train one network: step by step they do what one process does, and they end together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from together import TOGETHER, train
from torch import Tensor
from torch.nn.functional import batch_norm

from spnet.cli import main
from spnet.data import Augmentation, Split
from spnet.data.augment import augment
from spnet.network.sampling import Bounded, GumbelSoft, Sampler, Uniform
from spnet.routers.base import drop
from spnet.runs.record import read_metrics
from spnet.shard import Shard, ShardGenerator
from spnet.training import batch_norm as over_all
from spnet.training.streams import Streams

TESTS = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost"]
SPNET = [sys.executable, "-m", "spnet"]
TINY = [
    "train",
    "--method",
    "convnet-aig",
    "--backbone",
    "resnet8",
    "--subset",
    "64",
    "--batch-size",
    "32",
    "--validation",
    "0",
]


def quiet(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


# What an image meets does not depend on how many processes there are


def generators(count: int, whole: int) -> list[ShardGenerator]:
    found = []
    for rank in range(count):
        generator = ShardGenerator()
        generator.shard = Shard(whole, rank, count)
        found.append(generator.manual_seed(3))
    return found


def test_parts_of_a_batch_are_neighbours_and_nothing_is_left_out():
    split = Split(torch.zeros(23, 1, 2, 2, dtype=torch.uint8), torch.arange(23))
    order = torch.randperm(23)
    parts = [[labels for _, labels in split.epoch(order, 8, part=(rank, 3))] for rank in range(3)]
    assert [[len(labels) for labels in part] for part in parts] == [[3, 3, 3], [3, 3, 2], [2, 2, 2]]
    assert torch.equal(torch.cat([torch.cat(batch) for batch in zip(*parts, strict=True)]), order)
    assert Shard(8, 1, 3).counts == (3, 3, 2)
    assert Shard(8, 2, 3).of(torch.arange(16)).tolist() == [12, 13, 14, 15]  # two copies of each image


@pytest.mark.parametrize("sampler", [GumbelSoft(), Uniform(), Bounded()], ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("copies", [1, 2])
def test_processes_draw_what_one_draws(sampler: Sampler, copies: int):
    logits = torch.randn(7 * copies, 2)
    alone = sampler(0, logits, torch.Generator().manual_seed(3)).gate_BK
    shards = generators(3, 7)
    parts = [sampler(0, g.shard.of(logits), g).gate_BK for g in shards]
    assert torch.equal(torch.cat(parts), alone)
    after = [torch.rand((), generator=g) for g in shards]
    assert after[0] == after[1] == after[2]  # they stand at one place


def test_masks_and_views_are_those_of_one_process():
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)

    def seen(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        views = augment(images, Augmentation(2, True), generator, copies=2)
        return views, drop(views.flatten(1).float(), 0.4, generator)

    alone = seen(images, torch.Generator().manual_seed(3))
    parts = [seen(g.shard.of(images), g) for g in generators(2, 5)]
    for whole, *own in zip(alone, *parts, strict=True):
        assert torch.equal(torch.cat(own), whole)


def test_only_modules_of_others_draw_by_process():
    class OneOfTwo:
        def __init__(self, rank: int) -> None:
            self.part = (rank, 2)

        def generator(self, device: torch.device) -> torch.Generator:
            return torch.Generator(device)

    one, other = (Streams(3, 1, torch.device("cpu"), OneOfTwo(rank)) for rank in (0, 1))  # type: ignore[arg-type]
    for first, second in zip([one.order, *one.drawn_in_a_step], [other.order, *other.drawn_in_a_step], strict=True):
        assert torch.equal(torch.rand(4, generator=first), torch.rand(4, generator=second))
    assert one.modules != other.modules


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 2, 2)])
def test_one_process_alone_normalises_as_torch_does(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    """Worked out in another way, with the same slopes and running statistics; a mean far from zero costs nothing."""
    monkeypatch.setattr(over_all, "SumOverProcesses", torch.nn.Identity)
    monkeypatch.setattr(torch.nn.Identity, "apply", staticmethod(lambda x: x))
    found = []
    for function in (batch_norm, over_all.batch_norm):
        generator = torch.Generator().manual_seed(1)
        x = (100 + torch.randn(shape, generator=generator)).requires_grad_()
        weight, bias = torch.rand(3, generator=generator).requires_grad_(), torch.zeros(3, requires_grad=True)
        mean, var = torch.zeros(3), torch.ones(3)
        y = function(x, mean, var, weight, bias, True, 0.2, 1e-5)
        y.square().sum().sin().backward()
        found.append((y, mean, var, x.grad, weight.grad, bias.grad))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


# The same losses, step by step


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("alone")
    for number, case in enumerate(TOGETHER):
        train(case, number, place)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_take_the_steps_of_one(processes: int, alone: Path, tmp_path: Path):
    """Every method, the batch shared unevenly: each loss term of each step, what shares of the gradient they have, and
    what the trained network does, are those of one process."""
    done = quiet([*TORCHRUN, f"--nproc-per-node={processes}", str(TESTS / "together.py"), str(tmp_path)])
    assert done.returncode == 0, done.stderr
    for number, case in enumerate(TOGETHER):
        ours, theirs = (read_metrics(place / str(number)) for place in (alone, tmp_path))
        assert len(ours) == len(theirs) == case.epochs
        for one, several in zip(ours, theirs, strict=True):
            wrong = f"{case}, step {one.epoch}"
            assert several.losses == pytest.approx(one.losses, rel=1e-5, abs=1e-5), wrong
            assert several.watched == pytest.approx(one.watched, rel=1e-4, abs=1e-5), wrong
            assert several.gradient_share == pytest.approx(one.gradient_share, abs=1e-4), wrong
            assert several.train_accuracy == pytest.approx(one.train_accuracy), wrong
            assert several.train_images == one.train_images, wrong
    for rank in range(processes):
        said = (tmp_path / f"refused-{rank}").read_text()
        assert said.startswith(f"process 2 of {processes} differs from the first in its versions: spnet 1, not spnet 0")


# They end together, and go on


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_killed_process_ends_the_run_in_one_line_and_it_goes_on_bit_for_bit(tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags = ["--with", "spnet", "--epochs", "12", "--devices", "2"]
    done = quiet([*SPNET, *TINY, *flags, "--out", str(whole), "--json"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["train_images"] == 12 * 64  # one object, of the first process
    assert len((whole / "metrics.jsonl").read_text().splitlines()) == 12
    assert (whole / "report.html").is_file()

    command = [*SPNET, *TINY, *flags, "--out", str(cut)]
    leader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert leader.stderr is not None
    while "epoch   3" not in (line := leader.stderr.readline()):
        assert line, "ended by itself"
    task = Path(f"/proc/{leader.pid}/task/{leader.pid}/children")
    if not task.is_file():
        leader.kill()
        pytest.skip("this system does not list a process's children")
    workers = [pid for pid in sorted(map(int, task.read_text().split())) if spawned(pid)]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    began = time.monotonic()
    out, err = leader.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert leader.returncode == 2 and out == ""
    assert err.splitlines()[-1].startswith("spnet: process 2 of 2 ended (signal 9); the run goes on with --resume")
    assert "Traceback" not in err and err.count("spnet: ") == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)

    done = quiet([*SPNET, "train", "--resume", str(cut), "--devices", "2"])
    assert done.returncode == 0, done.stderr
    assert "not in the same bits" not in done.stderr
    assert weights(cut) == weights(whole)


def spawned(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.slow
def test_another_number_of_processes_goes_on_and_says_so(tmp_path: Path):
    """The steps are the same up to rounding; with batch norm by process they are not, and it is refused."""
    run = tmp_path / "run"
    done = quiet([*TORCHRUN, "--nproc-per-node=3", "-m", "spnet", *TINY, "--epochs", "1", "--out", str(run)])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch ") == 1 and done.stdout.count("test accuracy") == 1  # the others are silent


@pytest.mark.slow
def test_data_that_one_process_lacks_are_one_line(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\nfrom spnet.cli import main\n"
        f"data = 'digits' if os.environ['RANK'] == '0' else 'folder:{tmp_path}/away'\n"
        f"sys.exit(main({TINY!r} + ['--epochs', '1', '--data', data, '--out', '{tmp_path}/run']))\n"
    )
    done = quiet([*TORCHRUN, "--nproc-per-node=2", str(script)])
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("spnet: ")]
    assert len(said) == 1 and "away" in said[0] and said[0].endswith("(process 2 of 2)")
    assert "exitcode  : 2" in done.stderr  # of the process; torchrun's own is 1
    assert not (tmp_path / "run").exists()


# What cannot be shared


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch-size", "2"], "batch_size 2 cannot be shared by 3 processes: take one image for each at least"),
        (["--batch-size", "5", "--sync-batch-norm", "false"], "take two images"),
        (["--batch-size", "30", "--time-limit", "60"], "needs one process"),
        (["--batch-size", "30", "--compile", "inductor"], "compiled blocks cannot add up over processes"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_a_process_starts(
    flags: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("spnet.training.devices.cores", lambda: 3)
    out = tmp_path / "deep" / "run"
    small = ["train", "--backbone", "resnet8", "--subset", "64", "--validation", "0.1", "--devices", "3"]
    assert main([*small, *flags, "--out", str(out)]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_more_processes_than_the_machine_has_cores_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--devices", "6400"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("spnet: --devices 6400: one process each, and ") and "take at most" in line


@pytest.mark.slow
def test_a_taken_folder_is_refused_once(trained: Path) -> None:
    """By real processes, in a job of one task, whose environment does not matter: nothing comes after the one line."""
    job = {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    done = quiet([*SPNET, "train", "--devices", "2", "--out", str(trained)], **job)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"spnet: {trained} holds a run already")
    assert "Traceback" not in done.stderr and done.stderr.count("spnet: ") == 1
