"""Real processes, as services, pipes, full disks and second writers meet them. Where it is not the start of an
interpreter that matters they are forked from this one."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import forked
import pytest
import torch
from PIL import Image

from spnet import data
from spnet.cli import main

pytestmark = pytest.mark.usefixtures("unreported")
SMALL = ("--method", "static", "--backbone", "resnet8", "--subset", "64", "--batch-size", "32", "--epochs", "2")
COMMAND = (sys.executable, "-m", "spnet", "train")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}


# How threads wait


WAITING = """
import os, sys
from pathlib import Path
from spnet import waiting
class WithoutTorch:  # the choice is made before it is imported, which takes seconds
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError(name)
sys.meta_path.insert(0, WithoutTorch())
waiting.LOAD = Path({load!r})
from spnet.{door} import main
sys.argv[1:] = [word.replace('PARENT', str(os.getppid())) for word in {argv}]
try:
    main()
except BaseException:
    pass
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"), file=sys.stderr)
"""


def waiting(door: str, argv: list[str], load: str = "nowhere", **chosen: str) -> str:
    """The waiting of a fresh process after a command; `load`: the file in which it looks for neighbours."""
    script = WAITING.format(door=door, argv=argv, load=load)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**ENVIRONMENT, **chosen},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    policy, spin = done.stderr.split()[-2:]
    return spin if policy == "None" else policy


@pytest.mark.parametrize(
    ("door", "argv", "expected"),
    [
        ("cli", ["train", "--resume", "nowhere"], "100000"),
        ("cli", ["bench", "--help"], "None"),  # its rivals are measured as their users run them
        ("jobs.worker", ["nowhere", "PARENT"], "100000"),
    ],
)
def test_threads_choose_waiting(door: str, argv: list[str], expected: str):
    assert waiting(door, argv) == expected


def test_the_users_own_choice_of_waiting_stands():
    assert waiting("cli", ["--version"], OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"
    assert waiting("cli", ["--version"], GOMP_SPINCOUNT="1000") == "1000"
    assert waiting("cli", ["--version"], KMP_BLOCKTIME="0") == "None"


def test_threads_are_put_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before = torch.get_num_threads()
    assert main(["train", *SMALL, "--out", str(tmp_path / "run"), "--threads", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["made_with"]["threads"] == 2
    assert torch.get_num_threads() == before
    for verb in (["train"], ["eval", "cifar10"], ["reproduce", "table2", "--scale", "smoke", "--workers", "0"]):
        for count, words in (("0", "threads must be at least 1, not 0"), ("two", "invalid int value: 'two'")):
            assert main([*verb, "--threads", count]) == 2
            assert words in capsys.readouterr().err.splitlines()[-1]


# One writer a folder


@pytest.fixture
def busy(tmp_path: Path):
    """A folder that a real process trains in, and that process."""
    run = tmp_path / "run"
    process = forked.start("train", *SMALL[:-1], "1000000000", "--out", run, stderr=subprocess.PIPE)
    while not process.stderr.readline().startswith("epoch "):
        assert process.poll() is None
    reader = threading.Thread(target=process.stderr.read)
    reader.start()
    yield run, process
    process.kill()
    process.wait()
    reader.join()
    process.stderr.close()


def test_a_second_writer_is_refused_and_a_kill_leaves_no_lock(busy, capsys: pytest.CaptureFixture[str]):
    run, process = busy
    for flags in ([*SMALL, "--seed", "5", "--out", str(run)], ["--resume", str(run)]):
        assert main(["train", *flags]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line == f"spnet: {run} is being trained by another process: wait for it, or choose another --out."
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["train", "--resume", str(run), "--time-limit", "1e-9", "--json"]) == 0
    stopped = json.loads(capsys.readouterr().out)
    assert stopped["epochs_done"] >= 1 and not stopped["finished"]
    assert not (run / ".lock").exists()


# Streams


def test_training_needs_no_open_stream(tmp_path: Path):
    none, no_errors = tmp_path / "none", tmp_path / "no-errors"
    words = " ".join([*COMMAND, *SMALL, "--out", str(none)])
    assert subprocess.run(["sh", "-c", f"exec {words} <&- >&- 2>&-"], check=False).returncode == 0
    assert forked.start("train", *SMALL, "--out", no_errors, stderr=None).wait() == 0
    for out in (none, no_errors):
        assert (out / "result.json").is_file() and main(["eval", str(out)]) == 0


def test_a_reader_who_leaves_does_not_end_a_training(tmp_path: Path):
    words = " ".join([*COMMAND, *SMALL, "--out", str(tmp_path / "run")])
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {words} 2>&1 | head -1"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("static on digits") and done.stderr == ""
    assert (tmp_path / "run" / "result.json").is_file()


def test_nor_does_one_of_its_errors(tmp_path: Path):
    head = subprocess.Popen(["head", "-1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process = forked.start("train", *SMALL, "--out", tmp_path / "run", stderr=head.stdin)
    said, _ = head.communicate()
    assert said.startswith("static on digits") and process.wait() == 0
    assert (tmp_path / "run" / "result.json").is_file()


def test_a_narrow_encoding_escapes_what_it_lacks(tmp_path: Path):
    """As streams are from the start: in another interpreter, and the quickest command that names a file."""
    picture = tmp_path / "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"
    Image.new("RGB", (32, 32)).save(picture)
    words = [sys.executable, "-m", "spnet", "predict", "cifar10-small", str(picture)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "caf\\xe9" in done.stdout and "Traceback" not in done.stderr


# Disks


def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path):
    """A real limit on the size of files: the process cannot write its state, later it cannot write its network."""

    def limit(size: int):
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    run = tmp_path / "run"
    done = forked.run("train", *SMALL, "--out", run, before=limit(1000))
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith(f"spnet: cannot write {run}/state/resume.pt") and "room" in last
    assert not list(tmp_path.iterdir())
    assert main(["train", *SMALL, "--out", str(run), "--time-limit", "1e-9"]) == 0
    before = (run / "state" / "resume.pt").read_bytes()
    done = forked.run("train", "--resume", run, before=limit(100_000))
    assert done.returncode == 2 and "cannot write" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert (run / "state" / "resume.pt").read_bytes() == before
    assert main(["train", "--resume", str(run)]) == 0


LACKING = """
import resource, sys
from spnet.cli import main
import spnet.data, spnet.training.fit, torch._dynamo
spnet.data.load("digits")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), used + (40 << 20)))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_memory_that_runs_out_costs_nothing_that_was_written(tmp_path: Path):
    """A real limit on the memory of a process, met in the middle of a training."""
    large = (*SMALL[:4], "--subset", "1024", "--batch-size", "1024", "--epochs", "2")
    runs = [tmp_path / name for name in ("run", "whole", "other")]
    assert main(["train", *large, "--out", str(runs[1])]) == 0
    assert main(["train", *large, "--out", str(runs[0]), "--time-limit", "1e-9"]) == 0
    before = (runs[0] / "state" / "resume.pt").read_bytes()
    for argv in (["--resume", str(runs[0])], [*large, "--out", str(runs[2])]):
        words = [sys.executable, "-c", LACKING, "train", *argv]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr, done.stderr
        assert done.stderr.splitlines()[-1] == (
            "spnet: out of memory: lower --batch-size, or take a smaller --backbone. What was written before is whole."
        )
    assert (runs[0] / "state" / "resume.pt").read_bytes() == before
    for run in (runs[0], runs[2]):
        assert main(["train", "--resume", str(run)]) == 0
        assert (run / "model.safetensors").read_bytes() == (runs[1] / "model.safetensors").read_bytes()


NOBODY = 65534


def test_a_read_only_folder_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """As a user without rights, which root becomes: the system itself refuses."""
    digits = data.load("digits")  # the packages may lie where that user cannot read
    monkeypatch.setattr("spnet.data.digits.load", lambda: digits)
    locked = tmp_path / "locked"
    locked.mkdir()
    run = locked / "run"
    assert main(["train", *SMALL, "--out", str(run), "--time-limit", "1e-9"]) == 0
    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    locked.chmod(0o555)
    if root := os.getuid() == 0:
        for parent in list(tmp_path.parents)[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
        tmp_path.chmod(0o755)
        os.seteuid(NOBODY)
    try:
        for flags in ([*SMALL, "--out", str(locked / "other")], ["--resume", str(run)]):
            assert main(["train", *flags]) == 2
            line = capsys.readouterr().err.splitlines()[-1]
            assert line.startswith("spnet: cannot write ") and "ermission denied" in line
    finally:
        if root:
            os.seteuid(0)
        for path in (locked, *folders):
            path.chmod(0o755)
    assert main(["train", "--resume", str(run)]) == 0


# Time


def test_a_billion_epochs_and_a_time_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    argv = ["train", *SMALL[:-1], "1000000000", "--time-limit", "1", "--out", str(tmp_path / "run"), "--json"]

    def small_memory() -> None:  # a list of a billion epochs would take 16 GB
        resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))

    before = time.monotonic()
    done = forked.run(*argv, before=small_memory)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs_done"] < 1000 and time.monotonic() - before < 300
    assert all(len(line) <= 79 for line in done.stderr.splitlines() if line.startswith("epoch"))
