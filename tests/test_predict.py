"""`spnet predict`: folders, bad pictures among good ones, names that would steer a terminal."""

import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from spnet import data
from spnet.bench.profile import profile_path
from spnet.cli import main
from spnet.cli.words import useless
from spnet.data.cache import cache_root
from spnet.errors import UserError
from spnet.runs.record import Evaluation


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pics/a.png, pics/inner/b.png, and a file that is no picture."""
    monkeypatch.chdir(tmp_path)
    for name in ("pics/a.png", "pics/inner/b.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 99).save(name)
    Path("pics/notes.txt").write_text("")
    return tmp_path


def predicted(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 0) -> tuple[dict, list[str]]:
    capsys.readouterr()
    assert main(["predict", *map(str, argv), "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out), err.splitlines()


def test_a_folder_stands_for_every_picture_below_it(trained: Path, pictures: Path, capsys) -> None:
    os.mkfifo("pics/inner/pipe.png")
    (pictures / "pics" / "inner" / "circle").symlink_to(pictures / "pics")
    result, lines = predicted(capsys, trained, "pics", "pics/a.png")
    assert [p["image"] for p in result["predictions"]] == ["pics/a.png", "pics/inner/b.png", "pics/a.png"]
    assert lines == [
        "spnet: left out in 'pics': 3, that is 1 by the ending (.txt), 1 not a regular file ('pipe.png'), 1 folders"
    ]
    (pictures / "empty").mkdir()
    assert main(["predict", str(trained), "empty"]) == 2
    assert "'empty' has no images" in capsys.readouterr().err


def test_a_pipe_is_never_opened(trained: Path, pictures: Path, capsys) -> None:
    os.mkfifo("pipe.png")
    assert main(["predict", str(trained), "pipe.png"]) == 2
    assert capsys.readouterr().err == (
        "spnet: there is no image file 'pipe.png': it is no regular file; check the path\n"
    )


def test_bad_pictures_do_not_cost_the_good_ones(trained: Path, pictures: Path, capsys) -> None:
    Path("bad.png").write_text("no picture")
    alone, _ = predicted(capsys, trained, "pics/a.png")
    result, lines = predicted(capsys, trained, "bad.png", "pics/a.png", "gone.png", code=2)
    assert result["predictions"] == alone["predictions"]
    assert [failure["image"] for failure in result["failures"]] == ["bad.png", "gone.png"]
    assert lines == [f"spnet: {failure['reason']}" for failure in result["failures"]]
    assert "bad.png' is not a readable image" in lines[0] and "no image file 'gone.png'" in lines[1]
    assert main(["predict", str(trained), "bad.png", "pics/a.png"]) == 2
    assert capsys.readouterr().out.startswith("pics/a.png: ")
    assert main(["predict", str(trained), "bad.png", "gone.png"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("spnet: none of 2 images could be read; the first: 'bad.png'")


def decided(trained: Path, folder: Path, shift: float) -> Path:
    """A copy of the run whose network decides for everything (a large shift) or nothing."""
    from spnet.runs.folder import load_network, save_network

    run = shutil.copytree(trained, folder)
    net = load_network(run)
    net.decision_shift.fill_(shift)
    save_network(run, net)
    return run


def test_a_network_that_skips_nothing_says_so(trained: Path, pictures: Path, capsys) -> None:
    whole, nothing = decided(trained, pictures / "whole", 1e6), decided(trained, pictures / "nothing", -1e6)
    words = "note: nothing is skipped: every block ran for all 2 pictures. A --max-cost skips more."
    assert predicted(capsys, whole, "pics")[0]["notes"] == [words]
    assert main(["predict", str(whole), "pics"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == words
    assert predicted(capsys, whole, "pics/a.png")[0]["notes"] == []  # a single one may be hard
    assert predicted(capsys, nothing, "pics")[0]["notes"] == []
    static = pictures / "static"  # it has nothing to decide
    tiny = ["--method", "static", "--backbone", "resnet8", "--epochs", "1", "--subset", "64", "--out", str(static)]
    assert main(["train", *tiny]) == 0
    assert predicted(capsys, static, "pics")[0]["notes"] == []
    for run, said in (
        (whole, ["note: nothing is skipped: every block runs for every image. A lower --budget skips more."]),
        (
            nothing,
            ["note: every image takes the same path: no decision depends on the image. A lower --budget skips more."],
        ),
        (static, []),
    ):
        assert main(["eval", str(run)]) == 0
        assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")] == said


def test_what_decisions_win() -> None:
    def said(rate: float, cost: float, paths: int) -> str:
        figures = Evaluation(execution_rate=rate, cost_ratio=cost, distinct_paths=paths)
        return " ".join(useless(figures, "Skip more."))

    assert said(1.0, 1.001, 1) == "note: nothing is skipped: every block runs for every image. Skip more."
    assert said(0.99, 1.0, 4).startswith("note: nothing is saved: the routers cost as much")
    assert said(0.5, 0.6, 1).startswith("note: every image takes the same path")
    assert said(0.99, 0.999, 2) == ""


STEERING = "\x1b[31m\u202egnp\u2066\r\n\x07"
SPELT = r"\x1b[31m\u202egnp\u2066\r\n\x07"


def renamed(trained: Path, folder: Path, *names: str) -> Path:
    """A copy of the run whose first classes have other names."""
    run = shutil.copytree(trained, folder)
    record = json.loads((run / "config.json").read_text())
    record["classes"][: len(names)] = names
    (run / "config.json").write_text(json.dumps(record))
    return run


def test_names_cannot_steer_the_terminal(trained: Path, pictures: Path, capsys) -> None:
    run = renamed(trained, pictures / "run", *[f"class{i}{STEERING}" for i in range(10)])
    shutil.copy("pics/a.png", f"{STEERING}.png")
    Path(f"bad{STEERING}.png").write_text("no picture")
    assert main(["predict", str(run), f"{STEERING}.png", f"bad{STEERING}.png"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{SPELT}.png: class") and SPELT in out.split(": ", 1)[1]
    assert not {"\x1b", "\u202e", "\u2066", "\r", "\x07"} & set(out + err)
    assert len(out.splitlines()) == len(err.splitlines()) == 1
    result, _ = predicted(capsys, run, f"{STEERING}.png")
    assert result["predictions"][0]["image"] == f"{STEERING}.png"  # for programs, as they are
    assert result["predictions"][0]["class"].endswith(STEERING)


def test_names_that_are_no_text_are_shown(trained: Path, pictures: Path, capfdbinary) -> None:
    name = os.fsdecode(b"\xff.png")
    try:
        shutil.copy("pics/a.png", name)
    except OSError:
        pytest.skip("this file system takes text alone")
    assert main(["predict", str(trained), name]) == 0
    assert capfdbinary.readouterr().out.startswith(rb"\udcff.png: ")


def test_a_stream_that_lacks_letters_gets_escapes(trained: Path, pictures: Path, monkeypatch) -> None:
    """As PYTHONIOENCODING=ascii sets them up."""
    run = renamed(trained, pictures / "run", *["café"] * 10)
    shutil.copy("pics/a.png", "thé.png")
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii", "strict", write_through=True))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, "ascii", "backslashreplace", write_through=True))
    assert main(["predict", str(run), "thé.png", "thè.png"]) == 2
    assert out.getvalue().startswith(rb"th\xe9.png: caf\xe9  (")
    assert b"there is no image file 'th\\xe8.png'" in err.getvalue()


def test_a_user_without_a_home(trained: Path, pictures: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container with a bare user id has it: no HOME, no entry among the users."""
    pwd = pytest.importorskip("pwd")

    def unknown(_: object) -> None:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("SPNET_CACHE", raising=False)
    monkeypatch.delenv("SPNET_DATA", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(pictures / "temporary"))
    result, lines = predicted(capsys, trained, "pics/a.png", "--executor", "auto")
    assert len(result["predictions"]) == 1 and lines == []
    assert cache_root() == profile_path().parent == pictures / "temporary" / f"spnet-cache-{os.getuid()}"
    for argv in (["train", "--data", "folder:~/pics"], ["train", "--data", "cifar10:~nobody-here/x"]):
        assert main(argv) == 2
        assert "the path cannot be looked up" in capsys.readouterr().err
    with pytest.raises(UserError, match="cifar10 is not on this machine"):
        data.load("cifar10", may_download=False)
    monkeypatch.setenv("SPNET_DATA", "~/sets")
    with pytest.raises(UserError, match="SPNET_DATA names '~/sets', but there is no home folder"):
        data.load("cifar10", may_download=False)
