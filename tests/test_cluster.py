"""A Ray cluster of two nodes on this machine: archives and lists of runs come out as they do without it."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import spnet
from spnet.cli import main
from spnet.cluster import address_of, check_nodes, connected, slots
from spnet.errors import UserError
from spnet.jobs.runner import run_all
from spnet.runs.config import RunConfig

pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.")  # Ray Data of itself
TINY = {"epochs": 2, "batch_size": 128, "validation": 0.0, "subset": 256}


# Without a cluster


def test_without_ray_a_line_says_what_to_install(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("a.png")
    reproduce = ["reproduce", "budgets", "--scale", "smoke", "--on", "ray"]
    for argv in (["predict", str(trained), "--folder", ".", "--out", "x.parquet", "--on", "ray"], reproduce):
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert out == "" and "pip install 'spnet[cluster]'" in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_what_on_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert address_of("ray") is None and address_of("ray:10.0.0.1:6379") == "10.0.0.1:6379"
    assert address_of("ray://host:10001") == "ray://host:10001" and address_of("ray:[::1]:6379") == "[::1]:6379"
    monkeypatch.setenv("RAY_ADDRESS", "there:6379")
    assert address_of("ray") == "there:6379"
    for wrong in ("dask", "ray:", "ray:host", "ray:6379", "ray:host:port", "rays:host:6379", ""):
        with pytest.raises(UserError, match="--on wants ray"):
            address_of(wrong)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--run-cpus", "2"], "--run-cpus and --run-gpus go with --on ray"),
        (["--on", "ray", "--run-cpus", "-1"], "must be 0 or more"),
        (["--on", "ray", "--run-cpus", "nan"], "must be 0 or more"),
        (["--on", "ray", "--workers", "0"], "--workers must be at least 1 with --on; not 0"),
        (["--on", "slurm"], "--on wants ray"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(argv: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    places = [word for name in ("results", "work", "out") for word in (f"--{name}", str(tmp_path / name))]
    assert main(["reproduce", "budgets", "--scale", "smoke", *places, *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


# With one


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU."""
    made = pytest.importorskip("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture
def on(cluster: Any) -> str:
    return f"ray:{cluster.address}"


def test_no_cluster_at_the_address_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    pytest.importorskip("ray")
    places = [word for name in ("results", "work", "out") for word in (f"--{name}", str(tmp_path / name))]
    assert main(["reproduce", "budgets", "--scale", "smoke", *places, "--on", "ray:127.0.0.1:1"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("spnet: no Ray cluster answers at 127.0.0.1:1 (") and err.count("\n") == 1


@pytest.mark.slow
def test_an_archive_over_two_nodes_is_the_local_file(trained: Path, on: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for k in range(12):
        Image.new("L", (8, 8), 20 * k).save(f"photos/{k:02}.png")
    Path("photos/05.png").write_text("no picture")
    small: dict[str, Any] = {"folder": "photos", "executor": "gathered", "batch_size": 2, "part_size": 3}
    spnet.predict_files(trained, "whole.parquet", **small)

    def stop(done: int, photos: int) -> None:
        if done > 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        spnet.predict_files(trained, "rows.parquet", report=stop, **small)
    made = spnet.predict_files(trained, "rows.parquet", on=on, **small)  # goes on there with what was begun here
    assert (made.photos, made.unreadable, made.kept) == (12, 1, 3)
    assert Path("rows.parquet").read_bytes() == Path("whole.parquet").read_bytes()


@pytest.mark.slow
def test_a_node_that_lacks_something_is_named(on: str, tmp_path: Path):
    with connected(on, [tmp_path]) as ray:
        assert slots(ray, 1) == 2 and slots(ray, 0.5) == 4
        with pytest.raises(UserError, match="has 1 CPUs and 1 GPUs: ask for less"):
            slots(ray, 1, 1)
        with pytest.raises(UserError, match=f"node .* has spnet {spnet.__version__}, here it is 99: install one"):
            check_nodes(ray, version="99")
    with (
        pytest.raises(UserError, match=r"node .* has no '.*nowhere': share that place"),
        connected(on, [Path("nowhere")]),
    ):
        pass
    (tmp_path / "spnet.py").write_text("raise ImportError")
    ray = pytest.importorskip("ray")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ray.init(address=on.removeprefix("ray:"), log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    try:
        with pytest.raises(UserError, match=f"node .* has no spnet: install version {spnet.__version__} there"):
            check_nodes(ray)
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_failed_run_says_why_here(on: str, tmp_path: Path):
    from spnet.jobs.on_ray import RayLauncher

    lost = RunConfig("static", "", "resnet8", f"cifar10:{tmp_path}", TINY)
    with connected(on) as ray:
        board = run_all(
            [lost], results=tmp_path / "results", work=tmp_path / "work", launch=RayLauncher(ray), pause=0.1
        )
    (why,) = board.failed.values()
    assert "exit code 2, see " in why and "UserError: " in Path(why.split("see ")[1]).read_text()


@pytest.mark.slow
def test_a_node_killed_on_the_way_changes_no_record(cluster: Any, on: str, tmp_path: Path):
    """The last test of the cluster, for it loses a node."""
    from spnet.jobs.on_ray import RayLauncher

    runs = [RunConfig("dynamic", "", "resnet8", "digits", {**TINY, "seed": seed}) for seed in range(4)]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    run_all(runs, results=theirs / "results", work=theirs / "work", workers=0)
    started: list[str] = []
    begun = lambda: len(list((ours / "work").glob("*/config.json")))  # noqa: E731
    with connected(on) as ray:
        launcher = RayLauncher(ray)

        def launch(config: RunConfig, folder: Path, threads: int) -> Any:
            started.append(config.hash)
            return launcher(config, folder, threads)

        doomed = cluster.worker_nodes.copy().pop()

        def show(board: Any) -> None:
            if begun() > 1 and doomed in cluster.worker_nodes:  # each node trains one
                cluster.remove_node(doomed, allow_graceful=False)

        how: dict[str, Any] = {"workers": slots(ray, 1), "threads": 1, "launch": launch, "show": show, "pause": 0.1}
        board = run_all(runs, results=ours / "results", work=ours / "work", **how)
    assert doomed not in cluster.worker_nodes and not board.failed and len(board.finished) == len(runs)
    assert sorted(started) == sorted(run.hash for run in runs), "a run was launched twice"
    for run in runs:
        mine, other = (json.loads((place / "results" / f"{run.hash}.json").read_text()) for place in (ours, theirs))
        assert mine["final"] == other["final"] and mine["config"] == other["config"]
    stamps = [path.stat().st_mtime_ns for path in sorted((ours / "results").glob("*.json"))]
    time.sleep(0.01)
    run_all(runs, results=ours / "results", work=ours / "work", launch=None)
    assert [path.stat().st_mtime_ns for path in sorted((ours / "results").glob("*.json"))] == stamps
