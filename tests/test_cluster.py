"""A Ray cluster of two nodes on this machine: archives and lists of runs come out as they do without it."""

import json
import os
import pickle
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import spnet
from spnet.cli import main
from spnet.cli.on import speaking_aside
from spnet.cluster import address_of, check_nodes, connected, in_a_line, slots
from spnet.errors import UserError
from spnet.inference.batch.listing import FilePart, RowPart
from spnet.inference.batch.on_ray import Worker
from spnet.jobs.launcher import train_here
from spnet.jobs.on_ray import KEPT, RETRIES, RayLauncher
from spnet.jobs.runner import record, run_all
from spnet.runs.config import RunConfig
from spnet.runs.lock import held

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


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes calls and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_no_cluster_at_the_address_is_one_line(
    silent: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setattr("spnet.cluster.KNOCK", 0.2)
    places = [word for name in ("results", "work", "out") for word in (f"--{name}", str(tmp_path / name))]
    for address, why in (("127.0.0.1:1", "refused"), (f"127.0.0.1:{silent}", "timed out"), ("[::1]:99999", "")):
        for on in (f"ray:{address}", f"ray://{address}"):
            assert main(["reproduce", "budgets", "--scale", "smoke", *places, "--on", on]) == 2
            out, err = capsys.readouterr()
            assert out == "" and "spnet: no Ray cluster answers at " in err and why in err and err.count("\n") == 1


def test_another_version_of_ray_there_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def init(**how: Any) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9\nThis process:\n    2.60")

    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: False, init=init))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "budgets", "--scale", "smoke", "--on", "ray"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and not list(tmp_path.iterdir())
    assert "joined at auto: Version mismatch: The cluster was started with: Ray: 2.9 This process: 2.60" in err


def test_a_page_of_ray_is_told_in_its_first_line(capsys: pytest.CaptureFixture[str]):
    with speaking_aside():
        print("(raylet) Raylet is terminated. Its log:\n    [state-dump] 1\n    [state-dump] 2")
        print("(raylet) The task is started again.")
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [
        "(raylet) Raylet is terminated. Its log:",
        "(raylet) The task is started again.",
    ]


class Lost(Exception):
    """As Ray's own errors."""


def test_what_a_task_raised_is_told_without_rays_page():
    error = Lost("\x1b[36mray::MapWorker()\x1b[39m (pid=7)\n  File 'worker.py', line 1\nOSError: the disk is full")
    assert in_a_line(error).startswith("\x1b[36mray::MapWorker()\x1b[39m (pid=7) File ")
    error.cause = OSError("the disk\n is full")  # type: ignore[attr-defined]
    assert in_a_line(error) == "OSError: the disk is full"


class Elsewhere:
    """What the launcher asks of Ray, by a node with a disk of its own; `lost`: it dies of each task."""

    exceptions = types.SimpleNamespace(RayError=Lost)

    def __init__(self, disk: Path, lost: bool = False) -> None:
        self.disk, self.lost = disk, lost

    def remote(self, **how: Any) -> Any:
        def task(function: Callable[..., Any]) -> Any:
            def start(config: dict[str, Any], folder: str, threads: int) -> Any:
                return partial(function, config, str(self.disk / Path(folder).name), threads)

            return types.SimpleNamespace(remote=start)

        self.how = how
        return task

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: Any) -> Any:
        if self.lost:
            raise Lost("The node was lost.\n  A page follows.")
        return reference()


def test_records_come_back_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spnet.jobs.on_ray.start_process", train_here)
    run, bad = (RunConfig("static", "", "resnet8", data, TINY) for data in ("digits", f"cifar10:{tmp_path}"))
    places: dict[str, Any] = {"results": tmp_path / "results", "work": tmp_path / "work", "pause": 0}
    node = Elsewhere(tmp_path / "node")
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / f"{bad.hash}.log").write_text("UserError: no images")
    begun_here = tmp_path / "work" / run.hash / "metrics.jsonl"
    begun_here.parent.mkdir(parents=True)
    begun_here.write_text("")  # and killed before its first epoch ended
    board = run_all([run, bad], **places, launch=RayLauncher(node, 2, 0.5), networks=[run.hash])
    assert node.how == {"num_cpus": 2, "num_gpus": 0.5, "max_retries": RETRIES}
    assert board.finished == [run.hash] and (made := record(run, tmp_path / "results")).hash == run.hash
    assert made.curves is not None and len(made.curves.train_accuracy) == TINY["epochs"]
    assert (tmp_path / "results" / "networks" / run.hash / "model.safetensors").is_file()
    assert sorted(path.name for path in (tmp_path / "work" / run.hash).iterdir()) == sorted(KEPT)
    assert (tmp_path / "work" / f"{bad.hash}.log").read_text() == "UserError: no images\n"
    lost = run.with_settings(seed=7)
    board = run_all([lost], **places, launch=RayLauncher(Elsewhere(tmp_path / "node", lost=True)))
    log = tmp_path / "work" / f"{lost.hash}.log"
    assert list(board.failed) == [lost.hash] and str(log) in board.failed[lost.hash]
    assert log.read_text() == "The node was lost. A page follows.\n"


def test_nodes_are_asked_for_photos_too(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder without them is what a node has where a shared disk is not mounted."""
    asked: list[Path] = []

    def ask(on: str, places: Sequence[Path]) -> Any:
        asked.extend(places)
        raise UserError("node 2 lacks something.")

    monkeypatch.setattr("spnet.inference.batch.predict.connected", ask)
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
        pq.write_table(pa.table({"image": [b"", b""]}), tmp_path / f"{name}.parquet")
    sources: list[dict[str, Any]] = [{"folder": "."}, {"parquet": ["b.parquet", "a.parquet"]}]
    for source in sources:
        with pytest.raises(UserError, match="node 2 lacks"):
            spnet.predict_files(trained, "rows.out", on="ray", **source)
    assert asked == [Path("."), Path("a.png"), Path("a.parquet"), Path("b.parquet")]
    assert not list(tmp_path.glob("rows*"))  # nothing is left of it


def test_what_an_actor_answers(trained: Path, tmp_path: Path):
    Image.new("L", (8, 8), 99).save(tmp_path / "a.png")
    pq.write_table(pa.table({"image": [(tmp_path / "a.png").read_bytes()] * 2}), tmp_path / "a.parquet")
    engine = spnet.Engine(spnet.load(trained), "gathered")
    worker = Worker(engine, batch_size=2, workers=1, base=str(tmp_path))
    parts = [FilePart(0, ("a.png", "b.png")), RowPart(1, "a.parquet", 0, 2), RowPart(2, "a.parquet", 2, 3)]
    found = worker(pa.table({"part": [pickle.dumps(part) for part in parts]})).to_pylist()
    rows = [pa.ipc.open_stream(answer["rows"]).read_all().to_pylist() for answer in found[:2]]
    assert [[row["path"] for row in part] for part in rows] == [["a.png", "b.png"], ["a.parquet#0", "a.parquet#1"]]
    assert rows[0][0]["class"] == rows[1][0]["class"] and rows[0][1]["error"].startswith(
        "there is no image file 'b.png'"
    )
    assert found[2]["rows"] is None and "has 2 rows now, and had 3 or more" in found[2]["refused"]


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
def test_a_failed_run_says_why_here_and_a_stopped_one_goes_on(on: str, tmp_path: Path):
    lost = RunConfig("static", "", "resnet8", f"cifar10:{tmp_path}", TINY)
    places: dict[str, Any] = {"results": tmp_path / "results", "work": tmp_path / "work", "pause": 0.1}
    with connected(on) as ray:
        board = run_all([lost], **places, launch=RayLauncher(ray))
        (why,) = board.failed.values()
        assert "exit code 2, see " in why and "UserError: " in Path(why.split("see ")[1]).read_text()
        long = RunConfig("static", "", "resnet8", "digits", {**TINY, "epochs": 100_000})
        job = RayLauncher(ray)(long, tmp_path / "long", 1)
        until(lambda: (tmp_path / "long" / "metrics.jsonl").is_file())
        job.stop()
        until(lambda: job.poll() is not None)
        assert job.poll() == 1 and not (tmp_path / "long" / "result.json").exists()
        with held(tmp_path / "long", wait=True):  # its process has gone with its task
            assert (tmp_path / "long" / "state" / "resume.pt").is_file()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def table(place: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    """What `reproduce budgets` writes there, without the seconds of the last column."""
    folders = [word for name in ("results", "work", "out") for word in (f"--{name}", str(place / name))]
    capsys.readouterr()
    assert main(["reproduce", "budgets", "--scale", "smoke", "--json", *folders, *more]) == 0
    said = json.loads(capsys.readouterr().out)  # whatever Ray has to say, it is not said there
    assert said["runs"] == 5 and said["failed"] == []
    return [line.rpartition(",")[0] for line in (place / "out" / "budgets.csv").read_text().splitlines()]


@pytest.mark.slow
def test_a_node_killed_on_the_way_changes_no_table(
    cluster: Any, on: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The last test of the cluster, for it loses a node."""
    there, here = tmp_path / "there", tmp_path / "here"
    started: list[str] = []
    launch = RayLauncher.__call__

    def counted(self: RayLauncher, config: RunConfig, folder: Path, threads: int) -> Any:
        started.append(config.hash)
        return launch(self, config, folder, threads)

    monkeypatch.setattr(RayLauncher, "__call__", counted)
    (doomed,) = cluster.worker_nodes

    def kill() -> None:
        until(lambda: len(list((there / "work").glob("*/config.json"))) > 1)  # each node trains one
        cluster.remove_node(doomed, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    over_nodes = table(there, capsys, "--on", on)
    killer.join()
    assert not cluster.worker_nodes and len(started) == len(set(started)) == 5
    monkeypatch.setattr(RayLauncher, "__call__", None)
    assert table(there, capsys) == over_nodes  # nothing is left to train
    assert table(here, capsys, "--workers", "0") == over_nodes
