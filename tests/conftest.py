"""Fixtures for every test. One thread, so that sums are always added in one order."""

import multiprocessing
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
import sklearn.datasets
import torch
from tiny import part

from spnet import data
from spnet.data import Dataset
from spnet.runs.config import RunConfig
from spnet.training.fit import Outcome, fit

torch.set_num_threads(1)
torch.ones(1, requires_grad=True).sum().backward()  # after an ONNX export the first one would start threads, and torch
# refuses to go backward in a process that is forked with them
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")  # the same examples every time: a red run is then our change


def pytest_addoption(parser: pytest.Parser) -> None:
    """Of tests/fuzz."""
    parser.addoption("--fuzz", type=int, default=300, metavar="N", help="cases of the fuzz suite (default 300)")
    parser.addoption("--fuzz-seed", type=int, default=17, metavar="S", help="where its random numbers start")
    parser.addoption("--fuzz-record", metavar="FILE", help="write seed, counts and failures there")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`pytest -n 2` gives each process neighbours, who share their file's fixtures, and moves what is left over."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.fixture(autouse=True)
def default_generator() -> None:
    """Every test starts from one state of torch's default generator, whatever ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Files reach the page cache, which outlives a killed process; waiting for a busy disk would only cost time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def digits_parsed_once():
    """A tenth of a second each time, hundreds of times; `spnet.data` makes tensors of its own of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sklearn.datasets, "load_digits", cache(sklearn.datasets.load_digits))
        yield


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """`spnet train` ends without drawing its page, which takes longer than a tiny training."""
    monkeypatch.setattr("spnet.report.write_report", lambda folders, out: out.write_text("a page"))


@pytest.fixture
def forked_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench's variants run in processes forked from this one, which are there at once. `tests/test_bench.py` has them
    in new interpreters, as users have."""
    fork = SimpleNamespace(get_context=lambda method: multiprocessing.get_context("fork"))
    monkeypatch.setattr("spnet.bench.isolated.multiprocessing", fork)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """A few of the embedded digits: 64 to train on, 40 to test."""
    return part(data.load("digits"), train=64, test=40)


@pytest.fixture
def train(digits: Dataset, tmp_path: Path) -> Callable[..., tuple[Path, Outcome]]:
    """Train a tiny run in this process: `train("spnet", epochs=2)` -> (run folder, outcome)."""

    def start(
        method: str = "spnet", wrapper: str = "", *, out: str = "run", **settings: object
    ) -> tuple[Path, Outcome]:
        settings = {"epochs": 2, "batch_size": 32, "validation": 0.0, "precision": "fp32", **settings}
        folder = tmp_path / out
        return folder, fit(RunConfig(method, wrapper, "resnet8", "digits", settings), digits, folder)

    return start


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished SP-Net run on digits; tests read it and never write to it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    settings = {
        "epochs": 3,
        "batch_size": 64,
        "validation": 0.0,
        "static_share": 0.3,
        "target": 0.5,
        "precision": "fp32",
    }
    fit(RunConfig("spnet", "", "resnet8", "digits", settings), part(data.load("digits"), train=512, test=40), folder)
    return folder
