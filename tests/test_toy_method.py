"""A method is one folder: `toy_method`, with a kind of router of its own, goes through every door.

Nothing here builds a network by hand or registers anything: the method is imported and named.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_method.method  # noqa: F401  (defines toy-glance)
from tiny import agreeing, images, lively, paths

import spnet
from spnet.bench.macs import counted_macs
from spnet.cli import main
from spnet.data import Dataset
from spnet.inference.export import export_onnx, open_export
from spnet.inference.runtimes.gathered import gathered
from spnet.runs.config import RunConfig
from spnet.runs.record import EpochRow
from spnet.training.fit import Outcome, fit

NAME = "toy-glance"


def config(wrapper: str = "") -> RunConfig:
    settings = {"epochs": 2, "batch_size": 32, "price": 0.2, "validation": 0.0, "precision": "fp32"}
    return RunConfig(NAME, wrapper, "resnet8", "digits", settings)


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Outcome]:
    """A finished run, and its folder as it stood after the first of its two epochs."""
    folder, halfway = (tmp_path_factory.mktemp("toy") / name for name in ("run", "halfway"))

    def copy(row: EpochRow) -> None:
        if row.epoch == 1:
            shutil.copytree(folder, halfway)

    return folder, halfway, fit(config(), digits, folder, report=copy)


@pytest.fixture(scope="module")
def net() -> spnet.DynamicNetwork:
    return lively(spnet.create_model("resnet8", NAME, in_channels=1, image_size=8, seed=0))


def test_it_is_found_and_built(net: spnet.DynamicNetwork):
    assert NAME in spnet.list_methods() and net.gated == (True,) * 3
    x = images(4)
    assert counted_macs(net, x, paths(net, 4), gathered) == int(net.forward_path(x, paths(net, 4)).macs.sum())
    with pytest.raises(spnet.UserError, match="Did you mean 'price'"):
        spnet.create_model("resnet8", NAME, pryce=1)


@pytest.mark.parametrize("wrapper", ["", "spnet"])
def test_it_is_trained_wrapped_or_not(wrapper: str, digits: Dataset, tmp_path: Path):
    outcome = fit(config(wrapper).with_settings(epochs=1), digits, tmp_path / "run")
    assert outcome.finished and "price" in outcome.rows[0].losses
    assert ("path" in outcome.rows[0].losses) == bool(wrapper)


def test_it_is_resumed_and_loaded(run: tuple[Path, Path, Outcome], digits: Dataset):
    folder, halfway, outcome = run
    resumed = fit(config(), digits, halfway, resume=True)
    assert resumed.begun_at == 1 and resumed.finished
    assert (halfway / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    loaded, x = spnet.load(folder), digits.test.images[:8]
    with torch.no_grad():
        mine, theirs = loaded(x), outcome.net.eval()(x)
    assert agreeing(mine.logits, theirs.logits, 1e-5) and torch.equal(mine.decisions, theirs.decisions)


def test_the_engine_runs_it_as_onnx(net: spnet.DynamicNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPNET_CACHE", str(tmp_path))
    engine, x = spnet.Engine(net, "onnx"), images(16)
    with torch.no_grad():
        expected = net(x)
    assert len(expected.decisions.unique(dim=0)) > 1
    for batch in (x, x[:1]):
        found = engine(batch)
        assert torch.equal(found.decisions, expected.decisions[: len(batch)])
        assert agreeing(found.logits, expected.logits[: len(batch)])
        assert found.macs.tolist() == expected.macs[: len(batch)].tolist()


@pytest.mark.parametrize("form", ["single", "batch"])
def test_it_is_exported(form: str, net: spnet.DynamicNetwork, tmp_path: Path):
    exported = export_onnx(net, tmp_path / "net.onnx", form=form)
    assert exported.error < 1e-4
    logits, decisions = open_export(tmp_path / "net.onnx")(images(9).numpy())
    with torch.no_grad():
        trace = net(images(9))
    np.testing.assert_allclose(logits, trace.logits.numpy(), atol=1e-4)
    assert decisions.tolist() == trace.decisions.tolist()


def test_the_command_line_knows_it(
    run: tuple[Path, Path, Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    forked_bench: None,
):
    """train --help, list, report and bench."""
    monkeypatch.setenv("SPNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spnet.bench.bench.rivals_for", lambda threads, batch, compiled: ["onnx-intra"])
    folder = str(run[0])
    with pytest.raises(SystemExit):
        main(["train", "--method", NAME, "--help"])
    assert "--price" in capsys.readouterr().out
    assert main(["list", "methods"]) == 0
    assert f"{NAME}  " in (text := capsys.readouterr().out) and "routers that remember a glance" in text
    assert main(["report", folder, "--out", str(tmp_path / "report.html")]) == 0
    assert NAME in (tmp_path / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    words = "--rates 0.5 --batches 1 --threads 1 --rounds 1 --seconds 0.01 --no-profile --json"
    assert main(["bench", folder, *words.split()]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["dynamic"][0]["rate"] == 0.5 and record["dynamic"][0]["speed_up"] is not None
