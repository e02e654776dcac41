"""Where output goes: through links to their target, into devices and pipes, and never over what is not ours."""

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import forked
import pytest

from spnet.cli import main


def page(path: Path) -> bool:
    return path.read_text().endswith("</html>\n")


def test_a_link_stays_and_its_target_is_written(trained: Path, tmp_path: Path):
    real = tmp_path / "real" / "page.html"
    real.parent.mkdir()
    real.write_text("old")
    os.link(real, tmp_path / "kept.html")
    real.chmod(0o640)
    link = tmp_path / "link.html"
    (tmp_path / "further.html").symlink_to("real/page.html")
    link.symlink_to("further.html")
    assert main(["report", str(trained), "--out", str(link)]) == 0
    assert link.is_symlink() and os.readlink(link) == "further.html" and page(real)
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert (tmp_path / "kept.html").read_text() == "old"  # replaced as a whole, not written over
    assert [path.name for path in real.parent.iterdir()] == ["page.html"]


def test_a_link_to_nothing_makes_its_target(trained: Path, tmp_path: Path):
    (tmp_path / "link.onnx").symlink_to("there.onnx")
    assert main(["export", str(trained), str(tmp_path / "link.onnx")]) == 0
    assert (tmp_path / "link.onnx").is_symlink() and (tmp_path / "there.onnx").stat().st_size > 1000


def test_a_run_folder_of_links(trained: Path, tmp_path: Path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "result.json").unlink()
    (run / "report.html").write_text("old")
    for name in ("model.safetensors", "report.html"):
        shutil.move(run / name, tmp_path / name)
        (run / name).symlink_to(tmp_path / name)
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "report.html").is_symlink() and page(tmp_path / "report.html")
    assert (run / "model.safetensors").is_symlink()


def test_a_pipe_is_written_into(trained: Path, tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert main(["report", str(trained), "--out", str(pipe)]) == 0
    reader.join(60)
    assert read[0].endswith(b"</html>\n") and stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_devices_are_written_into(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before = os.stat("/dev/null")
    assert main(["report", str(trained), "--out", "/dev/null"]) == 0
    assert main(["export", str(trained), "/dev/null"]) == 0
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode) and after.st_ino == before.st_ino
    capsys.readouterr()
    assert main(["report", str(trained), "--out", "/dev/full"]) == 2
    line = capsys.readouterr().err
    assert line == "spnet: cannot write /dev/full: No space left on device. Choose another --out or make room.\n"


def spnet(*argv: object, **more: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "spnet", *map(str, argv)], timeout=300, **more)  # type: ignore[call-overload]


def test_standard_output_carries_the_page_alone(trained: Path, tmp_path: Path):
    piped = spnet("report", trained, "--out", "/dev/stdout", capture_output=True)
    assert piped.returncode == 0 and piped.stdout.startswith(b"<!DOCTYPE html>") and piped.stdout.endswith(b"</html>\n")
    assert piped.stderr == b"wrote /dev/stdout about 1 run(s)\n"
    with open(tmp_path / "page.html", "wb") as file:
        file.write(b"before\n")
        file.flush()
        assert forked.start("report", trained, "--out", "/dev/stdout", stdout=file).wait() == 0
    assert (tmp_path / "page.html").read_bytes() == b"before\n" + piped.stdout


def test_standard_output_cannot_carry_two_things(trained: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", str(trained), "--out", "/dev/stdout", "--json"]) == 2
    assert "both want the standard output" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "loop", "below a file", "read-only"])
def test_what_cannot_be_written_is_refused(
    kind: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    elif kind == "loop":
        out.symlink_to("out")
    elif kind == "below a file":
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "out"
    else:
        out.write_text("mine")
        out.chmod(0o400)
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anything
    before = sorted(tmp_path.iterdir())
    assert main(["report", str(trained), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"spnet: cannot write {out}: ") and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
    assert kind != "read-only" or out.read_text() == "mine"


def test_resuming_deletes_nobody_elses_files(trained: Path, tmp_path: Path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "result.json").unlink()
    mine = [".draft.tmp", "notes/.draft.tmp", "notes/.spnet-1-0123abcd.tmp", ".spnet-draft.tmp", "state/.a.1.tmp"]
    for name in mine:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("mine")
    (run / ".spnet-1-0123abcd.tmp").write_text("left by a kill")
    assert main(["train", "--resume", str(run)]) == 0
    assert all((run / name).read_text() == "mine" for name in mine)
    assert not (run / ".spnet-1-0123abcd.tmp").exists()


def test_json_is_strict(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Where a figure is undefined it is null or left out: other readers of JSON know no NaN."""
    run = shutil.copytree(trained, tmp_path / "run")
    record = json.loads((run / "result.json").read_text())
    record["last"]["evolution_kl"] = float("nan")
    (run / "result.json").write_text(json.dumps(record))
    assert "NaN" in (run / "result.json").read_text()

    def bare(name: str) -> float:
        raise AssertionError(f"bare {name}")

    assert main(["train", "--resume", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=bare)["last"].get("evolution_kl") is None
