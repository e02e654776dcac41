"""`scripts/gpu.py` at toy size, on a machine that has torch, numpy and safetensors and nothing else of ours."""

import json
import os
import runpy
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spnet
from spnet.runs.config import RunConfig

SCRIPTS = Path(__file__).parent.parent / "scripts"
BARE = """
import sys
from importlib.machinery import PathFinder

LACKING = set("PIL pyarrow sklearn scipy rich matplotlib tensorboard torchvision lightning lightning_fabric".split())


class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] in LACKING or name.startswith("spnet.cli"):
            return None
        return super().find_spec(name, path, target)


sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine without those packages."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BARE)
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def call(environment: dict[str, str], folder: Path, *more: str) -> str:
    command = [sys.executable, str(SCRIPTS / "gpu.py"), "--toy", "--work", str(folder / "work")]
    done = subprocess.run(
        [*command, "--out", str(folder / "out"), *more], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_checks_measures_trains_packs_and_goes_on(bare: dict[str, str], tmp_path: Path):
    said = call(bare, tmp_path, "--ways", "compiled")
    lines = said.splitlines()
    words = {line.split()[1]: line.split()[2] for line in lines if line.startswith("check ")}
    assert words == {"compiled": "ok", "captured": "skipped", "both": "skipped", "resumed": "ok"}
    table = [line for line in lines if line.startswith(("static, ", "convnet-aig, ", "spnet, "))]
    assert [line.split()[1] for line in table] == ["eager", "compiled"] * 3
    assert all(float(line.split()[2]) > 0 for line in table)
    assert "0 of 3 runs are done" in said and "349 epochs take" in said

    out = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert out == ["gpu-1.tar.gz", "gpu.json"]
    record = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert [run["method"] for run in record["runs"]] == ["static", "convnet-aig", "spnet"]
    assert all(run["finished"] and run["epochs"] == 3 for run in record["runs"])
    with tarfile.open(tmp_path / "out" / "gpu-1.tar.gz") as archive:
        archive.extractall(tmp_path / "repository", filter="data")
    results = tmp_path / "repository" / "results"
    for run in record["runs"]:
        made = json.loads((results / f"{run['hash']}.json").read_text())
        assert RunConfig.from_json(made["config"]).hash == run["hash"], "tables find it by the hash of its config"
        assert made["config"]["data"] == "cifar10", "no path of that machine"
        assert len(made["curves"]["phase"]) == 3
        assert spnet.load(tmp_path / "repository" / "runs" / run["hash"]).num_classes == 10

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "runs").rglob("*") if path.is_file()}
    said = call(bare, tmp_path, "--ways", "compiled")
    assert "3 of 3 runs are done" in said and " running, " not in said
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "work" / "runs").rglob("*") if p.is_file()}
    assert [line for line in said.splitlines() if line in table] == table, "measured once"


def test_parcels_keep_to_number_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Records first, then the weights of finished runs; what finds no room is named."""
    scope = runpy.run_path(str(SCRIPTS / "gpu_pack.py"))
    pack: Callable[..., list[str]] = scope["pack"]
    limit, work, results, out = 400 << 10, tmp_path / "work", tmp_path / "results", tmp_path / "out"
    pack.__globals__.update(FILES=4, LIMIT=limit)
    runs = [RunConfig("static", "", "resnet8", "digits", {"seed": seed}) for seed in range(8)]
    results.mkdir()
    for seed, run in enumerate(runs):
        folder = work / run.hash
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(os.urandom(150 << 10))
        (folder / "metrics.jsonl").write_text("{}\n")
        if seed >= 6:
            (results / f"{run.hash}.json").write_text("{}")
    (tmp_path / "gpu.json").write_text("{}")
    out.mkdir()
    (out / "gpu-9.tar.gz").write_text("of an earlier call")
    said = pack(tmp_path / "gpu.json", runs, work, results, out)
    files = sorted(out.iterdir())
    assert [file.name for file in files] == ["gpu-1.tar.gz", "gpu-2.tar.gz", "gpu-3.tar.gz", "gpu.json"]
    assert all(file.stat().st_size <= limit for file in files)
    packed: list[str] = []
    for file in files[:3]:
        with tarfile.open(file) as archive:
            packed += archive.getnames()
    assert packed[:2] == [f"results/{run.hash}.json" for run in runs[6:]]
    assert sum(name.endswith("metrics.jsonl") for name in packed) == 8
    weights = [name.split("/")[1] for name in packed if name.endswith(".safetensors")]
    assert weights == [run.hash for run in (*runs[6:], *runs[:4])], "two to an archive, the finished ones first"
    assert [line for line in said if line.startswith("no room")] == [
        f"no room for runs/{run.hash}/model.safetensors" for run in runs[4:6]
    ]


def test_prepare_packs_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from spnet.data import load, packed

    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    main: Callable[[], int] = runpy.run_path(str(SCRIPTS / "gpu.py"))["main"]

    def prepare(*data: str) -> int:
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--prepare", *data, "--out", str(tmp_path)])
        return main()

    assert prepare("digits") == 0 and "digits-1-of-1.npz" in capsys.readouterr().out
    train, test = packed.read(tmp_path, "digits")
    digits = load("digits")
    assert train.images.equal(digits.train.images) and test.labels.equal(digits.test.labels)
    assert prepare("digits") == 2 and "is there already" in capsys.readouterr().err
    assert prepare("didgits") == 2 and "Did you mean 'digits'?" in capsys.readouterr().err


def test_data_that_are_not_there_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("SPNET_DATA", "")
    scope = runpy.run_path(str(SCRIPTS / "gpu.py"))
    (tmp_path / "cifar100").mkdir()
    (tmp_path / "cifar100" / "train.bin").touch()
    assert scope["find_data"](tmp_path, scope["FULL"].scale) == ("cifar100",)
    assert "holds no cifar10: it is not trained on" in capsys.readouterr().out
    assert os.environ["SPNET_DATA"] == f"cifar100:{tmp_path / 'cifar100'}"
