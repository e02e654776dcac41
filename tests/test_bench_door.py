"""`spnet bench` as it is used: what it prints once, what it draws, Ctrl-C, and networks that it cannot measure."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import Tensor, nn

from spnet import UserError, create_model
from spnet.bench.bench import BenchConfig, bench
from spnet.cli import main

QUICK = ["--rounds", "1", "--seconds", "0.01", "--threads", "1", "--no-profile"]


def test_every_line_is_printed_once_and_a_point_is_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, forked_bench: None
):
    monkeypatch.setattr("spnet.cli.counting.SILENCE", math.inf)  # however busy the machine is
    monkeypatch.setattr("spnet.bench.bench.rivals_for", lambda threads, batch, compiled: ["onnx-intra", "onnx-int8"])
    argv = ["bench", "resnet8", "--rates", "0.5", "--batches", "1,2", *QUICK, "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "no bench.png drawn: one rate is a point, a curve takes two",
    ]
    assert printed.out.count("int8 without data") == 2 and printed.out.count("not measured: compiled (") == 1
    assert printed.out.count("threads 1, batch 1: ") == printed.out.count("threads 1, batch 2: ") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bench.json"]
    json.loads((tmp_path / "out" / "bench.json").read_text(), parse_constant=lambda name: pytest.fail(name))


class Odd(nn.Module):
    """Its work depends on values in a way that no graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x + float(x.sum()) if x.sum() > 1e9 else x * len(x.sum((1, 2, 3)).tolist())


def test_a_network_without_an_onnx_form_is_refused_before_any_process():
    net = create_model("resnet8", "dynamic", in_channels=1, image_size=8, hidden=4, seed=0)
    net.backbone.stem.append(Odd())  # type: ignore[operator]
    with pytest.raises(UserError, match="the stem"):
        bench(net, BenchConfig((0.5,), (1,), (1,), 1, 0.01))


def test_ctrl_c_ends_all_in_one_line():
    """As from a terminal: the signal reaches the command and every process that it has started."""
    argv = [sys.executable, "-m", "spnet", "bench", "resnet8", "--seconds", "5", "--rounds", "99", "--no-profile"]
    process = subprocess.Popen(
        argv,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_hear_ctrl_c,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not _children(process.pid):
        time.sleep(0.02)
    time.sleep(0.5)  # a child that is being born
    os.killpg(process.pid, signal.SIGINT)
    try:
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130 and out == ""
    assert err == "spnet: interrupted; a run goes on with --resume, a list when it is called again.\n"


def _hear_ctrl_c() -> None:
    """A shell starts what runs in the background deaf to Ctrl-C, and these tests may be such a job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _children(pid: int) -> list[str]:
    file = Path(f"/proc/{pid}/task/{pid}/children")
    return file.read_text().split() if file.exists() else []
