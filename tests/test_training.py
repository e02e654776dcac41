"""The training loop: schedules, frozen parts, what a step adds up, divergence, time limits, another run as start."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path

import pytest
import torch
from tiny import SHAPE, images, part

import spnet
from spnet import DivergedError, DynamicNetwork, UserError, create_model
from spnet.build import build_network, create_method
from spnet.data import Augmentation, Dataset, Split, validation_part
from spnet.inference.calibrate import calibrate
from spnet.inference.evaluate import evaluate
from spnet.methods import Batch, Losses, Method, Optimizer, Step
from spnet.methods.base import backbone_only, everything, router_only
from spnet.methods.spnet import method as spnet_module
from spnet.runs import folder as checkpoint
from spnet.runs.config import RunConfig, TrainingConfig
from spnet.runs.forms import to_json
from spnet.training import finish as finish_module
from spnet.training import fit as fit_module
from spnet.training.epoch import check_weights, train_epoch
from spnet.training.fit import Outcome, fit
from spnet.training.schedule import build_optimizer, learning_rate
from spnet.training.step import freeze, gradient_shares
from spnet.training.streams import Streams
from spnet.training.tally import Tally

Train = Callable[..., tuple[Path, Outcome]]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# Schedules


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Optimizer(lr=1.0, schedule="constant"), {0.0: 1.0, 0.99: 1.0}),
        (Optimizer(lr=2.0, schedule="cosine"), {0.0: 2.0, 0.5: 1.0, 1.0: 0.0}),
        (Optimizer(lr=1.0, schedule="cosine", warmup=0.2), {0.0: 0.0, 0.1: 0.5, 0.2: 1.0, 0.6: 0.5, 1.0: 0.0}),
        (Optimizer(lr=1.0, schedule="multistep"), {0.0: 1.0, 0.42: 1.0, 0.43: 0.1, 0.72: 0.01}),
        (Optimizer(lr=1.0, schedule="multistep", milestones=(0.5,), warmup=0.1), {0.05: 0.5, 0.4: 1.0, 0.5: 0.1}),
        (Optimizer(lr=1.0, schedule="onecycle"), {0.0: 0.0, 0.25: 1.0, 0.625: 0.5, 1.0: 0.0}),
    ],
    ids=lambda value: value.schedule if isinstance(value, Optimizer) else "",
)
def test_learning_rate(config: Optimizer, expected: dict[float, float]):
    for progress, rate in expected.items():
        assert learning_rate(config, progress) == pytest.approx(rate, abs=1e-12), progress


def test_optimizers():
    parameter = torch.nn.Parameter(torch.ones(1))
    sgd = build_optimizer(Optimizer(lr=0.3, momentum=0.8, weight_decay=0.01, nesterov=True), [parameter])
    assert isinstance(sgd, torch.optim.SGD)
    assert {k: sgd.defaults[k] for k in ("lr", "momentum", "weight_decay", "nesterov")} == {
        "lr": 0.3,
        "momentum": 0.8,
        "weight_decay": 0.01,
        "nesterov": True,
    }
    assert isinstance(build_optimizer(Optimizer("adam"), [parameter]), torch.optim.Adam)


def test_the_rate_follows_the_phase(train: Train):
    """Two steps an epoch; the logged rate is that of the epoch's last step, as a share of the phase."""
    _, outcome = train("dynamic", epochs=4, static_share=0.5, lr=0.1)
    assert [row.phase for row in outcome.rows] == ["static", "static", "dynamic", "dynamic"]
    expected = [0.05 * (1 + math.cos(math.pi * progress)) for progress in (0.25, 0.75, 0.25, 0.75)]
    assert [row.lr for row in outcome.rows] == pytest.approx(expected)


# Streams


def test_streams_are_separate_and_repeatable():
    def draws(seed: int, epoch: int) -> list[int]:
        streams = Streams(seed, epoch, torch.device("cpu"))
        generators = [streams.order, streams.augmentation]
        for noise in (streams.student, streams.teacher):
            assert noise.gates is not None and noise.dropout is not None
            generators += [noise.gates, noise.dropout]
        return [int(torch.randint(2**60, (), generator=generator)) for generator in generators]

    assert draws(0, 0) == draws(0, 0)
    seen = draws(0, 0) + draws(0, 1) + draws(1, 0)
    assert len(set(seen)) == len(seen)


def test_every_method_sees_the_same_order_and_augmentation(digits: Dataset, monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, torch.Tensor] = {}
    for name, wrapper in (("static", ""), ("convnet-aig", ""), ("convnet-aig", "spnet")):
        method, net = built(name, wrapper)
        phase = method.phases(2)[-1]
        first: list[torch.Tensor] = []

        def spied(net: DynamicNetwork, batch, step, inner=phase.objective, first=first) -> Losses:
            first.append(batch.images)
            return inner(net, batch, step)

        epoch(net, replace(phase, objective=spied), digits)
        seen[f"{name} {wrapper}"] = torch.cat(first)
    static, *others = seen.values()
    assert all(torch.equal(static, other) for other in others)


# The step


def built(method: str = "spnet", wrapper: str = "", **settings) -> tuple[Method, DynamicNetwork]:
    method_ = create_method(method, wrapper, settings)
    net = build_network(method_, "resnet8", num_classes=10, input_shape=SHAPE, seed=0)
    method_.attach(net)
    return method_, net


def epoch(net: DynamicNetwork, phase, digits: Dataset, optimizer: Optimizer | None = None, **settings) -> Tally | None:
    optimizer = optimizer or Optimizer(lr=0.01)
    trainable = [p for name, p in net.named_parameters() if phase.trainable(name)]
    arguments = {
        "batch_size": 32,
        "augmentation": digits.augmentation,
        "streams": Streams(0, 0, torch.device("cpu")),
        "epoch_in_phase": 0,
        "precision": "fp32",
        **settings,
    }
    return train_epoch(net, build_optimizer(optimizer, trainable), phase, optimizer, digits.train, **arguments)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("augmentation", [None, Augmentation(pad=2, flip=True)], ids=["plain", "augmented"])
def test_every_copy_carries_its_images_label(copies: int, augmentation: Augmentation | None, digits: Dataset):
    """Image i is of brightness i wherever it is not cut off, and of class i: what the objective gets must say so."""
    method, net = built("codinet", copies=copies)
    bright = torch.arange(12, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE)
    numbered = replace(digits, train=Split(bright.contiguous(), torch.arange(12)))
    seen: list[torch.Tensor] = []

    def spied(net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        brightness = (255 * batch.images.amax((1, 2, 3))).round().long()
        assert torch.equal(brightness, batch.labels)
        assert batch.copies == copies and len(batch.labels) == 4 * copies
        together = batch.labels.view(4, copies)
        assert torch.equal(together, together[:, :1].expand(-1, copies))  # the copies of an image lie side by side
        seen.append(together[:, 0])
        trace = net(batch.images)
        return Losses({"size": trace.logits.square().mean()}, trace)

    phase = replace(method.phases(1)[0], objective=spied)
    tally = epoch(net, phase, numbered, augmentation=augmentation, batch_size=4)
    assert tally is not None and tally.images == 12 * copies
    assert sorted(torch.cat(seen).tolist()) == list(range(12))


def test_freezing_is_complete():
    net = built("spnet")[1]
    phase = built("dynamic", static_share=0.5)[0].phases(2)[0]
    trainable = freeze(net, phase)
    assert [p for p in net.parameters() if p.requires_grad] == trainable == list(net.backbone.parameters())
    assert net.backbone.training and not net.router.training and not net.stage_heads.training  # type: ignore[union-attr]

    freeze(net, replace(phase, trainable=router_only))
    assert net.router is not None and all(module.training for module in net.router.modules())
    assert not any(module.training for module in net.backbone.modules())

    freeze(net, replace(phase, trainable=everything))
    assert all(module.training for module in net.modules()) and all(p.requires_grad for p in net.parameters())
    freeze(net, replace(phase, trainable=lambda name: backbone_only(name) and "stem" not in name))
    assert not net.backbone.stem.training and net.backbone.head.training


def test_the_clamp_is_elementwise(digits: Dataset):
    method, net = built()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = Optimizer(lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant", clip_value=1e-6)
    epoch(net, method.phases(1)[0], digits, optimizer)
    steps = [(p.detach() - before[name]).abs().max().item() for name, p in net.named_parameters()]
    assert 0 < max(steps) <= 2.1e-6 * 1.2  # two steps, rounded to float32 around weights of size 1


def test_an_epoch_leaves_out_what_fills_no_batch(digits: Dataset):
    method, net = built("static")
    tally = epoch(net, method.phases(1)[0], digits, batch_size=30)
    assert tally is not None and (tally.steps, tally.images) == (2, 60)


def test_bf16_trains(digits: Dataset):
    method, net = built()
    tally = epoch(net, method.phases(1)[0], digits, precision="bf16")
    assert tally is not None and math.isfinite(tally.means()["loss"])
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in net.parameters())


def test_means_of_an_epoch(digits: Dataset):
    method, net = built()
    tally = epoch(net, method.phases(1)[0], digits)
    assert tally is not None
    means = tally.means()
    assert means["loss"] == pytest.approx(sum(means["losses"].values()), rel=1e-5)
    assert 0 <= means["train_accuracy"] <= 100
    assert means["train_macs_mean"] > 0
    assert sum(means["gradient_share"].values()) == pytest.approx(1.0)


def test_shares_of_terms_with_known_gradients():
    """Slopes (1, 2, 2) and (0, 0, 1) over two parameters: lengths 3 and 1. A term without a gradient has no share."""
    first, second = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(()))
    unused = torch.nn.Parameter(torch.ones(4))
    trace = create_model("resnet8", "static", in_channels=1, image_size=8).eval()(images(2))
    long, short = first[0] + 2 * first[1] + 2 * second, second.clone()
    losses = Losses({"long": long, "short": short, "constant": torch.ones(())}, trace)
    shares = gradient_shares(losses, [first, second, unused])
    assert {name: share.item() for name, share in shares.items()} == pytest.approx({"long": 0.75, "short": 0.25})


def test_gradient_shares_change_nothing(digits: Dataset, monkeypatch: pytest.MonkeyPatch):
    states = []
    for shares in (gradient_shares, lambda *_: {}):
        monkeypatch.setattr("spnet.training.step.gradient_shares", shares)
        method, net = built()
        epoch(net, method.phases(1)[0], digits)
        states.append(net.state_dict())
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


# Divergence


def test_the_first_bad_term_is_named():
    trace = create_model("resnet8", "static", in_channels=1, image_size=8).eval()(images(2))
    tally, labels = Tally(), torch.zeros(2, dtype=torch.int64)
    fine, bad = torch.tensor(1.0), torch.tensor(float("nan"))
    for path, logits in ((fine, fine), (bad, fine), (bad, bad)):
        tally.add(Losses({"classification": fine, "path": path, "logits": logits}, trace), labels)
    with pytest.raises(DivergedError, match=r"'path' was not finite at step 2 of this epoch.*lower --lr"):
        tally.check()
    Tally().check()  # an epoch without a step


def test_a_huge_rate_diverges_at_the_end_of_the_epoch_at_the_latest(train: Train, tmp_path: Path):
    with pytest.raises(DivergedError, match="'classification' was not finite at step 2"):
        train("spnet", lr=1e30)
    assert not (tmp_path / "run" / "model.safetensors").exists()  # no epoch was good
    state = torch.load(tmp_path / "run" / "state" / "resume.pt", weights_only=True)
    assert state["epoch"] == 0 and all(value.isfinite().all() for value in state["net"].values())


@pytest.mark.parametrize("lr", [1e30, 1e38])
def test_one_step_that_ruins_the_weights_is_no_good_state(lr: float, train: Train, tmp_path: Path):
    """The only loss of the epoch is finite; what its step leaves is not."""
    with pytest.raises(DivergedError, match="not finite"):
        train("spnet", lr=lr, batch_size=64)
    assert torch.load(tmp_path / "run" / "state" / "resume.pt", weights_only=True)["epoch"] == 0


def test_a_weight_that_is_not_finite_is_named():
    net = torch.nn.Linear(2, 2)
    check_weights(net)
    with torch.no_grad():
        net.bias[0] = float("inf")
    with pytest.raises(DivergedError, match="'bias' is not finite"):
        check_weights(net)


def test_the_last_good_state_is_kept_and_goes_on(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, _ = train("spnet", epochs=3, out="whole")
    path_alignment, calls = spnet_module.path_alignment, count()

    def failing(*args, **kwargs) -> torch.Tensor:
        value = path_alignment(*args, **kwargs)
        return value * float("nan") if next(calls) >= 3 else value  # the second step of the second epoch

    monkeypatch.setattr(spnet_module, "path_alignment", failing)
    with pytest.raises(
        DivergedError, match=r"'path' was not finite at step 2 of this epoch\. The last good state is kept"
    ):
        train("spnet", epochs=3)
    run = tmp_path / "run"
    assert torch.load(run / "state" / "resume.pt", weights_only=True)["epoch"] == 1
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert all(value.isfinite().all() for value in spnet.load(run).state_dict().values())
    monkeypatch.undo()
    assert go_on(run).finished
    assert weights(run) == weights(whole)


# Stopping and going on


def go_on(folder: Path, **options) -> Outcome:
    """Resume a run that the `train` fixture began."""
    from spnet.runs.folder import read_config

    dataset = part(spnet.data.load("digits"), train=64, test=40)  # type: ignore[attr-defined]
    return fit(read_config(folder)[0], dataset, folder, resume=True, **options)


def test_the_same_config_gives_the_same_bits_and_another_seed_others(train: Train):
    a, b, c = (train("spnet", out=name, seed=seed)[0] for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert weights(a) == weights(b) != weights(c)


def test_a_time_limit_leaves_a_run_that_goes_on(
    train: Train, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On a clock that ticks at each look, limits fall into the first epoch, into a later one and beyond the end."""
    settings = {"epochs": 2, "static_share": 0.5}
    whole, _ = train("spnet", out="whole", **settings)
    config = RunConfig(
        "spnet", "", "resnet8", "digits", {"batch_size": 32, "validation": 0.0, "precision": "fp32", **settings}
    )
    done = []
    for limit in (1, 8, 30):
        ticks, run = count(), tmp_path / f"limit{limit}"
        with monkeypatch.context() as clock:
            clock.setattr(fit_module.time, "monotonic", lambda ticks=ticks: float(next(ticks)))
            outcome = fit(config, digits, run, time_limit=limit)
        done.append(len(outcome.rows))
        assert outcome.finished == (outcome.result is not None) == (run / "result.json").exists()
        if not outcome.finished:
            assert go_on(run).finished
        assert weights(run) == weights(whole)
    assert done == [0, 1, 2]


def test_a_finished_folder_is_not_written_over(train: Train):
    folder, _ = train("static", epochs=1)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="holds a run already: continue it with --resume"):
        train("static", epochs=1)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept


def test_starting_from_another_run(train: Train, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`init` takes the backbone over; routers are new. The start is on disk before the first epoch ends."""
    start, _ = train("static", epochs=1, out="static")
    config = RunConfig("convnet-aig", "", "resnet8", "digits", {"epochs": 1, "batch_size": 32, "validation": 0.0})
    fit(config, digits, tmp_path / "limited", init=start, time_limit=1e-9)
    state = torch.load(tmp_path / "limited" / "state" / "resume.pt", weights_only=True)["net"]
    for name, value in spnet.load(start).state_dict().items():
        assert torch.equal(state[name], value), name
    fit(config, digits, tmp_path / "whole", init=start)
    assert go_on(tmp_path / "limited").finished
    assert weights(tmp_path / "limited") == weights(tmp_path / "whole")
    origin = {"name": "static", "hash": json.loads((start / "result.json").read_text())["hash"]}
    for folder in ("limited", "whole"):  # a resumed run knows it too; its name is no part of the hash
        for file in ("config.json", "result.json"):
            assert json.loads((tmp_path / folder / file).read_text())["started_from"] == origin
    assert json.loads((tmp_path / "whole" / "result.json").read_text())["hash"] == config.hash
    assert json.loads((start / "result.json").read_text())["started_from"] is None


def test_init_wants_the_same_backbone(train: Train, digits: Dataset, tmp_path: Path):
    start, _ = train("static", epochs=1, out="static")
    config = RunConfig("static", "", "resnet14", "digits", {"epochs": 1, "batch_size": 32})
    with pytest.raises(UserError, match=r"its backbone differs \(no matching 'backbone\.blocks\."):
        fit(config, digits, tmp_path / "new", init=start)
    assert not (tmp_path / "new").exists()


# Parts of the data, files of the run


def test_training_leaves_torchs_generator_alone(train: Train):
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    train("spnet", epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_validation_is_kept_from_training(train: Train):
    folder, outcome = train("static", epochs=2, validation=0.25, batch_size=16)
    assert [row.train_images for row in outcome.rows] == [48, 48]
    assert all(row.held_out and math.isnan(row.probe_accuracy) for row in outcome.rows)
    assert outcome.result is not None and outcome.result.best_epoch and outcome.result.best_epoch.epoch in (1, 2)
    assert outcome.result.last.n == 40
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == [to_json(row) for row in outcome.rows]


@pytest.mark.parametrize("validation", [0.0, 0.25])
def test_the_test_images_are_seen_after_the_last_epoch_and_decide_nothing(
    validation: float, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Test images are made brighter than all others; whatever the network is given is noted with what it is for.
    Thresholds and statistics are matched on what was trained on, not even on the validation part."""
    dim, bright = (Split(s.images // 2 + add, s.labels) for s, add in ((digits.train, 0), (digits.test, 128)))
    trained_on = validation_part(dim, validation)[0] if validation else dim
    purpose, seen = ["epochs"], []
    prepare = DynamicNetwork.prepare

    def prepared(net: DynamicNetwork, x: torch.Tensor) -> torch.Tensor:
        brightest = (x if x.dtype == torch.uint8 else 255 * (x * net.std + net.mean)).amax((1, 2, 3))
        seen.append((purpose[-1], "test" if brightest.min() > 127.5 else "train"))
        assert brightest.max() < 127.5 or seen[-1][1] == "test"
        return prepare(net, x)

    def spy_on(name: str) -> None:
        work = getattr(finish_module, name)

        def noted(net: DynamicNetwork, split: Split, *args: object):
            assert torch.equal(split.images, trained_on.images)
            purpose.append(name)
            try:
                return work(net, split, *args)
            finally:
                purpose.pop()

        monkeypatch.setattr(finish_module, name, noted)

    monkeypatch.setattr(DynamicNetwork, "prepare", prepared)
    for name in ("calibrate", "reestimate_batch_norm"):
        spy_on(name)
    settings = {"epochs": 2, "batch_size": 16, "validation": validation, "budget": 0.6, "reestimate_bn": True}
    config = RunConfig("convnet-aig", "", "resnet8", "digits", {"precision": "fp32", **settings})
    fit(
        config,
        replace(digits, train=dim, test=bright),
        tmp_path / "run",
        report=lambda row: purpose.append("result") if row.epoch == 2 else None,
    )
    assert [what for what, _ in groupby(seen)] == [
        ("epochs", "train"),
        ("result", "test"),
        ("calibrate", "train"),
        ("result", "test"),
        ("reestimate_batch_norm", "train"),
        ("calibrate", "train"),
        ("result", "test"),
    ]


def test_the_result_is_that_of_the_network_which_is_kept(train: Train, digits: Dataset):
    """Calibrated, then with statistics of its new paths and calibrated to those: the last of them is final."""
    folder, outcome = train("convnet-aig", budget=0.6, reestimate_bn=True)
    result = outcome.result
    assert result is not None and result.calibrated and result.reestimated
    assert result.final is result.reestimated
    kept = evaluate(spnet.load(folder), digits.test)
    for name in ("accuracy", "macs_mean", "evolution_kl"):
        assert getattr(kept, name) == pytest.approx(getattr(result.final, name), rel=1e-5), name
    assert len({f.evolution_kl for f in (result.last, result.calibrated, result.reestimated)}) == 3
    for figures in (result.calibrated, result.reestimated):
        assert figures.n == 40 and figures.calibration_cost == pytest.approx(0.6, rel=0.02)


def test_a_budget_missed_after_reestimation_keeps_the_calibrated_network(
    train: Train, digits: Dataset, monkeypatch: pytest.MonkeyPatch
):
    calls = iter(range(2))

    def only_once(net: DynamicNetwork, split: Split, budget: float) -> float:
        if next(calls):
            raise UserError("out of reach")
        return calibrate(net, split, budget)

    monkeypatch.setattr("spnet.training.finish.calibrate", only_once)
    folder, outcome = train("convnet-aig", budget=0.6, reestimate_bn=True)
    result = outcome.result
    assert result is not None and result.reestimated and result.reestimated.missed and result.final is result.calibrated
    kept = evaluate(spnet.load(folder), digits.test)
    for name in ("accuracy", "macs_mean", "evolution_kl"):
        assert getattr(kept, name) == pytest.approx(getattr(result.final, name), rel=1e-5), name


def test_without_validation_nothing_chooses(train: Train):
    _, outcome = train("static", epochs=1)
    assert outcome.result is not None and outcome.result.best_epoch is None
    assert not outcome.rows[0].held_out and outcome.rows[0].probe_accuracy > 0


def test_a_subset_is_balanced(train: Train):
    _, outcome = train("static", epochs=1, subset=20, batch_size=10)
    assert outcome.rows[0].train_images == 20


def test_a_batch_larger_than_the_set(train: Train, tmp_path: Path):
    with pytest.raises(UserError, match="batch_size 65 is larger than the 64 training images"):
        train("static", batch_size=65)
    assert not (tmp_path / "run").exists()


def test_a_run_folder(train: Train):
    folder, outcome = train("spnet", epochs=1, budget=0.7)
    assert {path.name for path in folder.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "state",
        "metrics.jsonl",
        "result.json",
    }
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]
    result = json.loads((folder / "result.json").read_text())
    assert outcome.result is not None and result == to_json(outcome.result)
    assert {"spnet", "torch", "commit", "hardware", "threads", "precision"} <= set(result["made_with"])
    assert result["train_images"] == 64 and result["train_seconds"] > 0


def test_events_are_read_by_tensorboard(train: Train):
    """Each epoch once, after a resume too; what a killed process wrote beyond the last whole epoch is gone."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from spnet.training.events import FILE, append_event, start_events

    folder, outcome = train("spnet", epochs=2)
    rows = [to_json(row) for row in outcome.rows]
    append_event(folder, {**rows[-1], "epoch": 3})
    with open(folder / FILE, "ab") as file:
        file.write(b"half a record")
    start_events(folder, rows)
    events = EventAccumulator(str(folder / FILE.parent))
    events.Reload()
    for name, expected in (
        ("loss", [row.loss for row in outcome.rows]),
        ("losses/path", [row.losses["path"] for row in outcome.rows]),
        ("execution_rate_per_block/2", [row.execution_rate_per_block[2] for row in outcome.rows]),
    ):
        found = events.Scalars(name)
        assert [event.step for event in found] == [1, 2]
        assert [event.value for event in found] == pytest.approx(expected, rel=1e-5)


def test_a_bare_machine_trains_too(train: Train, monkeypatch: pytest.MonkeyPatch):
    """Without tensorboard and safetensors: no events, the same weights in a file that torch reads."""
    monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r"(tensorboard|safetensors) is not installed"):
        folder, outcome = train("static", epochs=1)
    assert not (folder / "events").exists() and not (folder / "model.safetensors").exists()
    kept = torch.load(folder / "model.pt", weights_only=True)
    assert kept.keys() == outcome.net.state_dict().keys()
    assert all(torch.equal(kept[name], value) for name, value in outcome.net.state_dict().items())
    with pytest.raises(UserError, match="does not exist"):
        spnet.load(folder)


def test_training_needs_no_lightning():
    """In a process of its own: whatever this one has imported before says nothing."""
    script = (
        "import sys, torch; from spnet.training.fit import fit; from spnet.training.distributed import take_place; "
        "assert take_place().device.type == ('cuda' if torch.cuda.is_available() else 'cpu'); "
        "assert not [name for name in sys.modules if name.startswith('lightning')]"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_configs_survive_the_disk():
    config = RunConfig(
        "convnet-aig", "spnet", "resnet14", "digits", {"target": 0.5, "targets": (1, 0.5), "clip_value": None}
    )
    again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again.resolved() == config.resolved() and again.hash == config.hash
    assert again.training == config.training


def test_the_hash_names_what_matters():
    config = RunConfig("spnet", settings={"epochs": 3})
    assert config.hash == RunConfig("spnet", settings={"epochs": 3, "lr": TrainingConfig().lr}).hash
    others = [config.with_settings(seed=1), config.with_settings(path=0.2), replace(config, backbone="resnet8")]
    assert len({run.hash for run in (config, *others)}) == 4
    assert replace(config, data="cifar10:/a").hash == replace(config, data="cifar10:/b").hash
    assert replace(config, data="folder:/a").hash != replace(config, data="folder:/b").hash


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"epochs": -3}, "epochs must be at least 1"),
        ({"epochs": 2.5}, "'epochs' wants a whole number"),
        ({"batch_size": 1}, "batch norm needs two images"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": float("nan")}, "'lr' wants a number"),
        ({"lr": "1e400"}, "'lr' wants a number"),
        ({"weight_decay": -1e-4}, "weight_decay not negative"),
        ({"seed": -1}, "must not be negative"),
        ({"validation": 1.0}, "validation lies in [0, 1)"),
        ({"budget": 60}, "share of the static cost"),
        ({"optimizer": "sdg"}, "Did you mean 'sgd'?"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'?"),
        ({"precision": "fp16"}, "Did you mean 'bf16'?"),
        ({"nesterov": "perhaps"}, "wants true or false"),
        ({"milestones": "0.5,x"}, "'milestones' wants a number"),
        ({"targets": None}, "'targets' wants numbers separated by commas"),
        ({"static_share": 1.0}, "static_share"),
        ({"epoch": 3}, "Did you mean 'epochs'?"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict, message: str):
    with pytest.raises(UserError) as caught:
        config = RunConfig("spnet", settings=settings)
        create_method(config.method, config.wrapper, config.method_settings).phases(3)
    assert message in str(caught.value)


def test_text_becomes_settings():
    config = RunConfig(
        "dynamic", settings={"lr": "0.5", "epochs": "3", "nesterov": "yes", "clip_value": "none", "targets": "1,0.5"}
    )
    values = config.resolved()
    assert (values["lr"], values["epochs"], values["nesterov"], values["clip_value"]) == (0.5, 3, True, None)
    assert values["targets"] == (1.0, 0.5)


def test_copied_folders_are_runs(train: Train, tmp_path: Path):
    folder, _ = train("static", epochs=1)
    shutil.copytree(folder, tmp_path / "copy")
    assert torch.equal(spnet.load(tmp_path / "copy")(images(2)).logits, spnet.load(folder)(images(2)).logits)
