"""Several processes train one network: step by step they do what one process does, and they end together."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import Case
from tiny import part, two_steps
from together import LONG, OTHERS, Said, together, train
from torch import Tensor
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.nn.functional import batch_norm

from spnet import create_model, data
from spnet.cli import main
from spnet.data import Augmentation, Split
from spnet.data.augment import augment
from spnet.errors import UserError
from spnet.methods.static import Static
from spnet.network.sampling import Bounded, GumbelSoft, Sampler, Uniform
from spnet.routers.base import drop
from spnet.runs.config import RunConfig
from spnet.runs.record import read_metrics
from spnet.shard import Shard, ShardGenerator
from spnet.training import batch_norm as over_all
from spnet.training.distributed import joined
from spnet.training.fit import fit
from spnet.training.launch import why
from spnet.training.sharing import Shared
from spnet.training.streams import Streams

TINY = ["train", "--method", "convnet-aig", "--backbone", "resnet8", "--subset", "64", "--batch-size", "32"]
TINY += ["--validation", "0", "--static-share", "0"]
forked = pytest.mark.skipif(torch.cuda.is_available(), reason="a process that has used CUDA cannot be forked")


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import once what forked processes would import each."""
    import torch._dynamo  # noqa: F401  (by DDP)

    train(Case("static", epochs=1), tmp_path_factory.mktemp("warm") / "run")


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


def one_by_one(place: Path, cases: list[Case]) -> None:
    for number, case in enumerate(cases):
        train(case, place / str(number))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("alone")
    one_by_one(place, [*LONG, *OTHERS])
    return place


@pytest.mark.slow
@forked
@pytest.mark.parametrize(("processes", "cases"), [(2, [*LONG, *OTHERS]), (3, LONG)], ids=["two", "three"])
def test_processes_take_the_steps_of_one(processes: int, cases: list[Case], alone: Path, tmp_path: Path):
    """Twenty steps, the batch shared unevenly: each loss term, what shares of the gradient they have, and what the
    trained network does, are those of one process."""
    assert together(processes, lambda rank: one_by_one(tmp_path, cases)) == [None] * processes
    for number, case in enumerate(cases):
        ours, theirs = (read_metrics(place / str(number)) for place in (alone, tmp_path))
        assert len(ours) == len(theirs) == case.epochs
        for one, several in zip(ours, theirs, strict=True):
            where = f"{case}, epoch {one.epoch}"
            assert several.losses == pytest.approx(one.losses, rel=1e-5, abs=1e-5), where
            assert several.watched == pytest.approx(one.watched, rel=1e-4, abs=1e-5), where
            assert several.gradient_share == pytest.approx(one.gradient_share, abs=1e-3), where
            assert several.train_accuracy == pytest.approx(one.train_accuracy), where
            assert several.train_images == one.train_images, where
            assert several.loss == pytest.approx(sum(several.losses.values())), where


@pytest.mark.slow
@forked
def test_batch_norm_by_process_is_another_training_for_another_number(tmp_path: Path, alone: Path):
    run, case = tmp_path / "run", replace(LONG[0], settings={"sync_batch_norm": False}, epochs=2)
    assert together(2, lambda rank: train(case, run)) == [None, None]
    one, apart = (read_metrics(place)[0].loss for place in (alone / "0", run))
    assert abs(one - apart) > 1e-4
    (run / "result.json").unlink()
    with pytest.raises(UserError, match="begun by 2 processes with sync_batch_norm false"):
        train(case, run, resume=True)


# They agree, or say why not


@forked
def test_a_difference_is_said_by_all(tmp_path: Path):
    def meet(rank: int) -> object:
        with joined() as place:
            assert place.from_first(lambda: f"from {rank}") == "from 0"
            place.refuse_differences(versions=f"spnet {rank // 2}")

    answers = together(3, meet)
    said = [str(answer) for answer in answers if answer is not None]
    assert said and set(said) == {
        "process 3 of 3 differs from the first in its versions: spnet 1, not spnet 0; give every process the same."
    }


@forked
@pytest.mark.parametrize("other", [{"settings": {"target": 0.5}}, {"train": 60}])
def test_processes_with_other_settings_or_images_train_nothing(other: dict, tmp_path: Path):
    def start(rank: int) -> object:
        mine = other if rank else {}
        config = RunConfig(
            "spnet", "", "resnet8", "digits", {"batch_size": 8, "validation": 0.0, **mine.get("settings", {})}
        )
        fit(config, part(data.load("digits"), train=mine.get("train", 64), test=20), tmp_path / "run")

    (said, *_) = [answer for answer in together(2, start) if answer is not None]
    assert isinstance(said, UserError) and "process 2 of 2 differs from the first in its" in str(said)
    assert not (tmp_path / "run").exists()


@forked
def test_who_is_left_says_so_and_does_not_hang():
    def meet(rank: int) -> object:
        with joined() as place:
            if rank:
                os._exit(1)
            place.refuse_differences(nothing=0)

    said, nothing = together(2, meet)
    assert isinstance(said, UserError) and str(said).startswith(
        "another process of this run has ended; the run goes on"
    )
    assert nothing is None


@forked
def test_a_parameter_that_does_nothing_is_refused():
    """DDP waits for the gradient of every parameter."""

    def start(rank: int) -> object:
        net = create_model("resnet8", "static", in_channels=1, image_size=8)
        net.backbone.register_parameter("idle", torch.nn.Parameter(torch.zeros(1)))
        sharing = Shared(Shard(4, rank, 2))
        with joined(), sharing.passes(net, torch.nn.Module()):
            two_steps(net, Static().phases(1)[0], sharing=sharing)

    (said, *_) = [answer for answer in together(2, start) if answer is not None]
    assert isinstance(said, UserError) and str(said).startswith(
        "'backbone.idle' takes no part in what this network says"
    )


@forked
def test_the_first_process_speaks_for_all_and_another_where_it_alone_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("spnet.cli.several.PAUSE", 0.5)
    tiny = [*TINY, "--epochs", "1", "--out", str(tmp_path / "run")]
    first, second = together(2, lambda rank: Said(lambda: main(tiny)))
    assert first.code == second.code == 0
    assert "test accuracy" in first.out and first.err.count("epoch ") == 1
    assert not second.out and not second.err

    def without_data(rank: int) -> Said:
        lacking = ["--data", f"folder:{tmp_path}/away"] if rank else []
        return Said(lambda: main([*TINY, *lacking, "--out", str(tmp_path / "other")]))

    waiting, failed = together(2, without_data)
    assert waiting is None and failed.code == 2 and not failed.out
    (line,) = failed.err.splitlines()
    assert line.startswith("spnet: ") and "away" in line and line.endswith("(process 2 of 2)")
    assert not (tmp_path / "other").exists()


@forked
def test_more_processes_than_images_are_refused_in_one_line(tmp_path: Path):
    few = [*TINY[:5], "--subset", "2", "--validation", "0", "--out", str(tmp_path / "run")]
    first, *others = together(3, lambda rank: Said(lambda: main(few)))
    *_, line = first.err.splitlines()
    assert first.code == 2 and line.startswith("spnet: batch_size 2 cannot be shared by 3 processes")
    assert line.endswith("or fewer processes.") and others == [None, None] and not (tmp_path / "run").exists()


# They end together, and go on


@pytest.mark.slow
@forked
def test_a_killed_process_ends_the_run_in_one_line_and_it_goes_on_bit_for_bit(tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags = [*TINY, "--with", "spnet", "--epochs", "12"]
    done = together(2, lambda rank: Said(lambda: main([*flags, "--out", str(whole)])))
    assert [said.code for said in done] == [0, 0]

    command = [sys.executable, "-m", "spnet", *flags, "--threads", "1", "--devices", "2", "--out", str(cut)]
    leader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert leader.stderr is not None
    while "epoch   2" not in (line := leader.stderr.readline()):
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
    assert "Traceback" not in err and "torch" not in err and err.count("spnet: ") == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not (cut / "result.json").exists()

    first, _ = together(2, lambda rank: Said(lambda: main(["train", "--resume", str(cut), "--json"])))
    assert first.code == 0 and "not in the same bits" not in first.err
    assert json.loads(first.out)["train_images"] == 12 * 64  # one object, of the first process
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def spawned(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("exitcode", "said", "words"),
    [
        (-9, {0: UserError("another process has ended")}, r"process 2 of 3 ended \(signal 9\); the run goes on with"),
        (2, {2: UserError("by the third"), 0: UserError("by the first")}, "by the first"),
        (3, {}, r"process 2 of 3 ended \(exit code 3\)"),
    ],
)
def test_one_line_says_why_a_run_ended(exitcode: int, said: dict[int, Exception], words: str):
    """Of a process that was killed; else what the first process says."""
    failed = ChildFailedError("run", {1: ProcessFailure(1, 77, exitcode, "")})
    with pytest.raises(UserError, match=words):
        raise why(failed, said, 3)


def test_a_taken_folder_is_refused_before_a_process_starts(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("spnet.training.devices.cores", lambda: 2)
    assert main(["train", "--devices", "2", "--out", str(trained)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"spnet: {trained} holds a run already")


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


def test_devices_and_torchrun_are_not_both_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    assert main(["train", "--devices", "2"]) == 2
    assert "torchrun has started them: leave it out" in capsys.readouterr().err
