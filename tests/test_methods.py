"""The same doors for every method: two steps, frozen parts, determinism, open-all, resume at each epoch, loading."""

import shutil
from pathlib import Path

import pytest
import torch
from cases import CASES, Case
from tiny import SHAPE, agreeing, full_path, images, lively

import spnet
from spnet.build import build_network, create_method
from spnet.data import Dataset
from spnet.methods import Method, Optimizer, shipped_methods
from spnet.network.dynamic import DynamicNetwork
from spnet.network.sampling import AllRun
from spnet.runs.config import RunConfig
from spnet.runs.record import EpochRow
from spnet.training.epoch import train_epoch
from spnet.training.fit import fit
from spnet.training.schedule import build_optimizer
from spnet.training.streams import Streams

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def built(case: Case) -> tuple[Method, DynamicNetwork]:
    method = create_method(case.method, case.wrapper, case.settings)
    net = build_network(method, "resnet8", num_classes=10, input_shape=SHAPE, seed=0)
    method.attach(net)
    return method, net


def config(case: Case, **settings: object) -> RunConfig:
    common = {"epochs": case.epochs, "batch_size": 32, "lr": 0.02, "validation": 0.0, "precision": "fp32"}
    return RunConfig(case.method, case.wrapper, "resnet8", "digits", {**common, **case.settings, **settings})


def test_every_method_of_the_package_has_a_row():
    assert {case.method for case in CASES} == set(shipped_methods())


@every_case
@pytest.mark.parametrize("epochs", [0, 1, 2, 3, 10])
def test_epochs_are_in_total_and_every_phase_gets_one(case: Case, epochs: int):
    method, _ = built(case)
    try:
        phases = method.phases(case.epochs + epochs)
    except spnet.UserError:
        pytest.fail("as many epochs as the row has are enough")
    assert sum(phase.epochs for phase in phases) == case.epochs + epochs
    assert min(phase.epochs for phase in phases) >= 1
    assert len({phase.name for phase in phases}) == len(phases)


@every_case
@pytest.mark.parametrize("batch", [2, 16])
def test_two_steps_of_every_phase(case: Case, batch: int, digits: Dataset):
    """Every trainable parameter gets a finite gradient; what is frozen stays, bit for bit, statistics included."""
    method, net = built(case)
    optimizer_config = Optimizer(lr=0.01)
    for phase in method.phases(case.epochs):
        if phase.on_start is not None:
            phase.on_start(net)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        trainable = {name: p for name, p in net.named_parameters() if phase.trainable(name)}
        assert trainable
        tally = train_epoch(
            net,
            build_optimizer(optimizer_config, trainable.values()),
            phase,
            optimizer_config,
            digits.train.select(range(2 * batch)),
            batch_size=batch,
            augmentation=digits.augmentation,
            streams=Streams(0, 0, torch.device("cpu")),
            epoch_in_phase=0,
            precision="fp32",
        )
        assert tally is not None and tally.steps == 2 and tally.images == 2 * batch * phase.copies
        tally.check()
        for name, parameter in trainable.items():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), f"{phase.name}: {name}"
        assert any(not torch.equal(net.state_dict()[name], before[name]) for name in trainable)
        for name, module in net.named_modules():
            inside = list(module.named_parameters(prefix=name))
            if inside and not any(phase.trainable(inner) for inner, _ in inside):
                for inner, value in module.state_dict(prefix=f"{name}.").items():
                    assert torch.equal(value, before[inner]), f"{phase.name}: {inner} moved"


@every_case
def test_losses_are_named_and_add_up(case: Case, digits: Dataset):
    method, net = built(case)
    from spnet.data import normalise
    from spnet.methods import Batch, Step

    for phase in method.phases(case.epochs):
        pixels = normalise(digits.train.images[: 4 * phase.copies], (0.3,), (0.4,))
        batch = Batch(pixels, digits.train.labels[:4].repeat_interleave(phase.copies), phase.copies)
        losses = phase.objective(net.train(), batch, Step(phase))
        assert losses.terms and all(term.dim() == 0 for term in losses.terms.values())
        assert losses.total.item() == pytest.approx(sum(term.item() for term in losses.terms.values()), rel=1e-5)
        assert not any(value.requires_grad for value in losses.watched.values())


@every_case
def test_evaluation_is_deterministic_at_any_batch_size(case: Case):
    _, net = built(case)
    lively(net)
    x = images(9)
    with torch.no_grad():
        first, again = net(x), net(x)
        alone = [net(x[b : b + 1]) for b in range(9)]
    assert torch.equal(first.logits, again.logits) and torch.equal(first.decisions, again.decisions)
    assert torch.equal(torch.cat([trace.decisions for trace in alone]), first.decisions)
    assert agreeing(torch.cat([trace.logits for trace in alone]), first.logits)


@every_case
def test_open_all_equals_the_static_network(case: Case):
    method, net = built(case)
    lively(net)
    rule = method.block_rule()
    static = build_network(
        create_method("static", "", {"skip_rule": rule.skip, "shortcut": rule.shortcut}),
        "resnet8",
        num_classes=10,
        input_shape=SHAPE,
    ).eval()
    assert not static.load_state_dict(net.state_dict(), strict=False).missing_keys
    x = images(5)
    with torch.no_grad():
        expected = static(x)
        forced, opened = net.forward_path(x, full_path(net)), net(x, sampler=AllRun(), heads=False)
    assert agreeing(forced.logits, expected.logits, 1e-6) and agreeing(opened.logits, expected.logits, 1e-6)
    assert opened.macs.tolist() == [static.static_macs] * 5 and net.static_macs == static.static_macs


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case.wrapper else ()) for case in CASES], ids=str
)
def test_resumed_after_any_epoch_a_run_ends_in_the_same_bits(case: Case, digits: Dataset, tmp_path: Path):
    """Phase boundaries included. The uninterrupted run's folder is copied after each epoch, each copy is resumed."""
    whole = tmp_path / "whole"
    copies: list[Path] = []

    def copy(row: EpochRow) -> None:
        copies.append(tmp_path / f"after{row.epoch}")
        shutil.copytree(whole, copies[-1])

    outcome = fit(config(case), digits, whole, report=copy)
    assert outcome.finished and len(copies) == case.epochs
    expected = (whole / "model.safetensors").read_bytes()
    for folder in copies:
        rows: list[EpochRow] = []
        resumed = fit(config(case), digits, folder, resume=True, report=rows.append)
        assert resumed.finished and len(resumed.rows) == case.epochs
        assert len(rows) == case.epochs - int(folder.name.removeprefix("after"))
        assert (folder / "model.safetensors").read_bytes() == expected, folder.name
        assert [row.loss for row in resumed.rows] == [row.loss for row in outcome.rows]

    loaded = spnet.load(whole)
    assert list(loaded.state_dict()) == list(outcome.net.state_dict())
    x = digits.test.images[:8]
    with torch.no_grad():
        mine, theirs = loaded(x), outcome.net.eval()(x)
    assert agreeing(mine.logits, theirs.logits, 1e-5) and torch.equal(mine.decisions, theirs.decisions)


def test_a_phase_never_gets_no_epoch():
    from spnet.methods.warmups import split

    assert split(10, (0.3, 0.7)) == [3, 7]
    assert split(2, (0.01, 0.99)) == [1, 1]
    assert split(2, (0.99, 0.01)) == [1, 1]
    assert split(3, (0.0, 1.0)) == [0, 3]
    assert split(3, (0.9, 0.05, 0.05)) == [1, 1, 1]
    with pytest.raises(spnet.UserError, match="3 phases and needs at least as many epochs, not 2"):
        split(2, (0.4, 0.4, 0.2))


def test_wrappers_do_not_wrap_wrappers():
    with pytest.raises(spnet.UserError, match="wrapper already"):
        create_method("spnet", "spnet")
    with pytest.raises(spnet.UserError, match="unknown wrapper"):
        create_method("dynamic", "static")
