"""What a call changes in the process it puts back: threads, random numbers, flags, warnings, plotting."""

import os
import random
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from tiny import lively

from spnet import Engine, create_model, data, list_backbones, list_methods, load
from spnet.bench.bench import BenchConfig, bench
from spnet.cli import main
from spnet.data import Split
from spnet.inference.calibrate import calibrate
from spnet.inference.evaluate import evaluate
from spnet.inference.export import export_onnx, open_export
from spnet.inference.runtimes import EAGER
from spnet.inference.sweep import sweep
from spnet.report import write_report


def process() -> dict[str, Any]:
    """What of the process everybody shares."""
    return {
        "threads": torch.get_num_threads(),
        "threads between operators": torch.get_num_interop_threads(),
        "torch's random numbers": torch.get_rng_state().tolist(),
        "numpy's random numbers": [str(part) for part in np.random.get_state()],
        "Python's random numbers": random.getstate(),
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default type": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled),
        "mkldnn": torch.backends.mkldnn.enabled,
        "precision of products": torch.get_float32_matmul_precision(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "warnings": list(warnings.filters),
        "how warnings are shown": warnings.showwarning,
        "numpy's errors": np.geterr(),
        "back end": matplotlib.rcParams._get_backend_or_none(),  # type: ignore[attr-defined]
        "plotting": {k: v for k, v in dict.items(matplotlib.rcParams) if k != "backend"},
        "Ctrl-C": signal.getsignal(signal.SIGINT),
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
    }


@pytest.fixture(scope="module")
def net() -> Any:
    return lively(create_model("resnet8", "dynamic", in_channels=1, image_size=8, hidden=4, seed=0))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of a sweep."""
    monkeypatch.setattr("spnet.inference.sweep.BUDGETS", (0.7,))
    monkeypatch.setattr("spnet.inference.sweep.CONFIDENCES", (0.9,))


CALLS: dict[str, Callable[[Any, Path, Path], object]] = {
    "create_model": lambda net, run, out: create_model("resnet8", "rdi-net", in_channels=1, image_size=8, seed=3),
    "lists": lambda net, run, out: (list_methods(), list_backbones()),
    "data": lambda net, run, out: data.load("digits"),
    "load": lambda net, run, out: load(run),
    "forward": lambda net, run, out: net(pictures()),
    **{
        f"Engine {name}": lambda net, run, out, name=name: Engine(net, name)(pictures(1 if name == "branching" else 4))
        for name in (*EAGER, "onnx", "auto")
    },
    "Engine.calibrate": lambda net, run, out: Engine(net).calibrate(digits().test.images[:64], 0.7),
    "evaluate": lambda net, run, out: evaluate(net, some()),
    "calibrate": lambda net, run, out: calibrate(net, some(), 0.7),
    "sweep": lambda net, run, out: sweep(net, some(), some()),
    "export": lambda net, run, out: open_export(export_onnx(net, out / "net.onnx").file)(pictures().numpy()),
    "report": lambda net, run, out: write_report([run], out / "page.html"),
    "bench": lambda net, run, out: bench(net, BenchConfig((0.5,), (1,), (1,), 1, 0.01)),
    "spnet eval": lambda net, run, out: command("eval", run),
    "spnet eval --sweep": lambda net, run, out: command("eval", run, "--sweep", "--out", out),
    "spnet list": lambda net, run, out: command("list", "pretrained"),
    "spnet list backbones": lambda net, run, out: command("list", "backbones"),
    "spnet export": lambda net, run, out: command("export", run, out / "net.onnx"),
    "spnet report": lambda net, run, out: command("report", run, "--out", out / "page.html"),
    "spnet train": lambda net, run, out: command(
        "train", "--backbone", "resnet8", "--epochs", 2, "--subset", 60, "--batch-size", 30, "--out", out / "run"
    ),
    "spnet, refused": lambda net, run, out: main(["train", "--lr", "nan"]),
}


def command(*argv: object) -> None:
    assert main([str(part) for part in argv]) == 0


def digits() -> Any:
    return data.load("digits")


def some() -> Split:
    part = digits().test
    return Split(part.images[:40], part.labels[:40])


def pictures(count: int = 4) -> torch.Tensor:
    return torch.zeros(count, 1, 8, 8)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_the_process_as_it_was(
    name: str, net: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: None, forked_bench: None
):
    monkeypatch.setattr(matplotlib, "rcParams", matplotlib.rcParams)
    matplotlib.rcParams["backend"] = "svg"  # anybody's choice
    torch.set_num_threads(1)
    before = process()
    CALLS[name](net, trained, tmp_path)
    after = process()
    assert {key for key in before if before[key] != after[key]} == set()


def test_figures_are_drawn_in_whatever_back_end(tmp_path: Path, trained: Path, few: None):
    """Those of a sweep and of a bench, where the caller has chosen another one."""
    matplotlib.rcParams["backend"] = "pdf"
    command("eval", trained, "--sweep", "--out", tmp_path)
    assert matplotlib.rcParams["backend"] == "pdf"
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
