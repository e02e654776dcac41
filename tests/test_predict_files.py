"""Archives of photos to rows: the same rows as one by one, whatever interrupts, and nothing half done."""

import io
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import spnet
from spnet.cli import main
from spnet.data.parquet_rows import ForwardRows
from spnet.data.photos.ahead import AHEAD, read_ahead
from spnet.errors import UserError
from spnet.files import alone
from spnet.inference.batch.parts import LOCK

PHOTOS = 11
BAD = 4
"""Which of the photos is none."""
SMALL: dict[str, Any] = {"executor": "gathered", "batch_size": 2, "part_size": 3, "workers": 2}


def picture(k: int) -> bytes:
    """A grey picture of its own, in one of a few sizes; `BAD` is none."""
    if k == BAD:
        return b"no picture"
    pixels = np.random.default_rng(k).integers(0, 256, (8 + k % 3, 8, 1), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """photos/00.png, ..., the last three in photos/inner; and a file that is no picture."""
    monkeypatch.chdir(tmp_path)
    Path("photos/inner").mkdir(parents=True)
    for k in range(PHOTOS):
        Path(f"photos/{'inner/' if k >= PHOTOS - 3 else ''}{k:02}.png").write_bytes(picture(k))
    Path("photos/notes.txt").write_text("")
    return "photos"


def written(name: str, numbers: range, row_group: int, nested: bool = True) -> str:
    """A Parquet file of pictures, in one of the two layouts."""
    cells = [picture(k) for k in numbers]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": cell, "path": None} for cell in cells], kind) if nested else pa.array(cells)
    pq.write_table(pa.table({"image": column}), name, row_group_size=row_group)
    return name


def rows(file: str | Path) -> list[dict[str, Any]]:
    return pq.read_table(file).to_pylist()


def test_rows_are_what_predict_says_of_each_picture(trained: Path, folder: str, capsys: pytest.CaptureFixture[str]):
    argv = ["predict", str(trained), "--executor", "gathered", "--json"]
    assert main([*argv, "--folder", folder, "--out", "rows.parquet", "--batch-size", "3"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"run": str(trained), "out": "rows.parquet", "photos": PHOTOS, "unreadable": 1, "kept": 0}
    assert main([*argv, folder]) == 2
    alone = json.loads(capsys.readouterr().out)
    found = rows("rows.parquet")
    good = [row for row in found if row["error"] is None]
    assert [row["path"] for row in found] == sorted(row["path"] for row in found)
    for row, one in zip(good, alone["predictions"], strict=True):
        assert (row["path"], row["class"], row["decisions"]) == (one["image"], one["class"], one["path"])
        assert (row["macs"], row["exit_stage"]) == (one["macs"], one["exit_stage"])
        assert row["probability"] == pytest.approx(one["probability"], abs=1e-5)
    (bad,) = (row for row in found if row["error"] is not None)
    assert bad["path"] == f"photos/{BAD:02}.png" and bad["error"] == alone["failures"][0]["reason"]
    assert {bad[name] for name in ("class", "probability", "decisions", "macs", "exit_stage")} == {None}
    assert not Path("rows.parquet.parts").exists()
    assert main([*argv[:-1], "--folder", folder, "--out", "rows.parquet", "--batch-size", "3"]) == 0
    assert capsys.readouterr().out == (
        f"wrote rows.parquet: {PHOTOS} photos, {PHOTOS} of them done before; 1 could not be read: see column error\n"
    )


def test_parquet_files_give_the_rows_of_their_pictures(trained: Path, folder: str):
    files = [written("b.parquet", range(5, PHOTOS), 100, nested=False), written("a.parquet", range(5), 2)]
    of_files = spnet.predict_files(trained, "files.parquet", folder=folder, **SMALL)
    of_rows = spnet.predict_files(trained, "rows.parquet", parquet=files, **SMALL)
    assert (of_rows.photos, of_rows.unreadable) == (of_files.photos, of_files.unreadable) == (PHOTOS, 1)
    ours, theirs = rows("rows.parquet"), rows("files.parquet")
    names = [f"a.parquet#{row}" for row in range(5)] + [f"b.parquet#{row}" for row in range(6)]
    assert [row.pop("path") for row in ours] == names and len([row.pop("path") for row in theirs]) == PHOTOS
    assert ours[BAD].pop("error").startswith("row 4 (counted from 0) of 'a.parquet' is not a readable image")
    theirs[BAD].pop("error")
    for mine, other in zip(ours, theirs, strict=True):  # other parts, other batches: the last bit may differ
        assert mine.pop("probability") == pytest.approx(other.pop("probability"), abs=1e-5) and mine == other


def test_a_row_without_bytes_is_a_row_with_an_error(trained: Path, folder: str):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": "x"}, None, {"bytes": picture(0), "path": "y"}], kind)
    pq.write_table(pa.table({"img": cells}), "gaps.parquet")
    made = spnet.predict_files(trained, "rows.parquet", parquet="gaps.parquet", **SMALL)
    assert (made.photos, made.unreadable) == (3, 2) and [row["class"] is None for row in rows(made.out)] == [1, 1, 0]


def killed(run: Path, folder: str) -> None:
    """In a process of its own, after seven photos."""

    def report(done: int, photos: int) -> None:
        if done >= 7:
            os.kill(os.getpid(), signal.SIGKILL)

    spnet.predict_files(run, "rows.parquet", folder=folder, report=report, **SMALL)


def test_a_killed_call_goes_on_to_the_same_bytes(trained: Path, folder: str):
    spnet.predict_files(trained, "whole.parquet", folder=folder, **SMALL)
    process = multiprocessing.get_context("fork").Process(target=killed, args=(trained, folder))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    parts = sorted(Path("rows.parquet.parts").glob("part-*.parquet"))
    assert [part.name for part in parts] == ["part-000000.parquet", "part-000001.parquet"]
    assert not Path("rows.parquet").exists()
    parts[0].write_bytes(parts[0].read_bytes()[:100])  # a disk may lose the end of a file
    stamp = parts[1].stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    stamps: set[int] = set()

    def report(done: int, photos: int) -> None:
        seen.append((done, photos))
        stamps.add(parts[1].stat().st_mtime_ns)

    made = spnet.predict_files(trained, "rows.parquet", folder=folder, report=report, **SMALL)
    assert made.kept == 3 and stamps == {stamp}, "a finished part was computed again"
    assert seen == [(done, PHOTOS) for done in (3, 5, 6, 8, 9, 11)]
    assert Path("rows.parquet").read_bytes() == Path("whole.parquet").read_bytes()
    assert not Path("rows.parquet.parts").exists()


def test_a_finished_file_is_left_alone(trained: Path, folder: str, monkeypatch: pytest.MonkeyPatch):
    spnet.predict_files(trained, "rows.parquet", folder=folder, **SMALL)
    stamp = os.stat("rows.parquet").st_mtime_ns
    monkeypatch.setattr("spnet.inference.batch.predict.classify", None)
    assert spnet.predict_files(trained, "rows.parquet", folder=folder, **SMALL).kept == PHOTOS
    assert os.stat("rows.parquet").st_mtime_ns == stamp


class Stopped(Exception):
    pass


def stop(done: int, photos: int) -> None:
    if done > 4:
        raise Stopped


def test_parts_and_results_of_something_else_are_refused(trained: Path, folder: str):
    with pytest.raises(Stopped):
        spnet.predict_files(trained, "rows.parquet", folder=folder, report=stop, **SMALL)
    parts = sorted(Path("rows.parquet.parts").iterdir())
    assert [part.name for part in parts] == ["manifest.json", "part-000000.parquet"]
    spnet.predict_files(trained, "done.parquet", folder=folder, **SMALL)
    other = spnet.load(trained)
    other.decision_shift.fill_(9.0)
    Path("photos/99.png").write_bytes(picture(0))
    for out, where in (("rows.parquet", r"rows\.parquet\.parts'"), ("done.parquet", r"done\.parquet'")):
        with pytest.raises(UserError, match=f"{where} was made with another list of photos: choose another --out"):
            spnet.predict_files(trained, out, folder=folder, **SMALL)
    os.unlink("photos/99.png")
    for out in ("rows.parquet", "done.parquet"):
        with pytest.raises(UserError, match="was made with another network: choose"):
            spnet.predict_files(other, out, folder=folder, **SMALL)
        with pytest.raises(UserError, match=r"was made with max_cost None instead of 0\.9: choose"):
            spnet.predict_files(trained, out, folder=folder, max_cost=0.9, **SMALL)
    assert sorted(Path("rows.parquet.parts").iterdir()) == parts
    Path("mine.parquet").write_text("mine")
    Path("theirs.parquet.parts").mkdir()
    Path("theirs.parquet.parts/thesis.txt").write_text("mine")
    for out, words in (("mine", "is no result of predict"), ("theirs", "holds something else than parts")):
        with pytest.raises(UserError, match=words):
            spnet.predict_files(trained, f"{out}.parquet", folder=folder, **SMALL)
    assert Path("mine.parquet").read_text() == Path("theirs.parquet.parts/thesis.txt").read_text() == "mine"
    with alone(Path("rows.parquet.parts") / LOCK), pytest.raises(UserError, match="another process computes"):
        spnet.predict_files(trained, "rows.parquet", folder=folder, **SMALL)


def test_a_call_that_computed_nothing_leaves_nothing(trained: Path, folder: str):
    def at_once(done: int, photos: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        spnet.predict_files(trained, "rows.parquet", folder=folder, report=at_once, **SMALL)
    assert [path.name for path in Path().iterdir()] == ["photos"]


def test_a_cascade_says_who_answered(trained: Path, folder: str, capsys: pytest.CaptureFixture[str]):
    argv = ["predict", f"{trained}+{trained}", "--folder", folder, "--out", "rows.parquet", "--exit-confidence", "1"]
    assert main(argv) == 0 and "11 photos" in capsys.readouterr().out
    good = [row for row in rows("rows.parquet") if row["error"] is None]
    assert {row["exit_stage"] for row in good} == {1} and {len(row["decisions"]) for row in good} == {6}


def test_names_that_are_no_text_have_rows(trained: Path, folder: str):
    for name in (b"\xff.png", b"\xfe.png"):
        try:
            Path("photos", os.fsdecode(name)).write_bytes(picture(BAD if name == b"\xfe.png" else 0))
        except OSError:
            pytest.skip("this file system takes text alone")
    spnet.predict_files(trained, "rows.parquet", folder=folder, **SMALL)
    found = {row["path"]: row["error"] for row in rows("rows.parquet")}
    assert found[r"photos/\udcff.png"] is None and r"photos/\udcfe.png' is not" in found[r"photos/\udcfe.png"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "the following arguments are required: IMAGE"),
        (["a.png", "--out", "x"], "--out, --batch-size and --on go with --folder DIR or --parquet FILE."),
        (["--folder", "photos"], "name it, such as --out rows.parquet"),
        (["--folder", "photos", "--parquet", "p", "--out", "x"], "one of the three"),
        (["a.png", "--folder", "photos", "--out", "x"], "one of the three"),
        (["--folder", "photos", "--out", "x", "--draw", "x.png"], "--draw is for pictures that are named"),
        (["--folder", "nowhere", "--out", "x"], "'nowhere' is no folder"),
        (["--folder", "photos/empty", "--out", "x"], "'photos/empty' has no images"),
        (["--parquet", "nowhere.parquet", "--out", "x"], "'nowhere.parquet' is not a readable Parquet file"),
        (["--parquet", "text.parquet", "--out", "x"], "'text.parquet' has no column 'image'"),
        (["--parquet", "none.parquet", "--out", "x"], "'none.parquet' has no rows"),
        (["--parquet", "none.parquet", "none.parquet", "--out", "x"], "'none.parquet' is given twice"),
        (["--folder", "photos", "--out", "photos"], "'photos' is no regular file"),
        (["--folder", "photos", "--out", "/dev/null"], "'/dev/null' is no regular file"),
        (["--folder", "photos", "--out", "x", "--batch-size", "0"], "batch_size must be at least 1, not 0"),
        (["--folder", "photos", "--out", "x", "--workers", "0"], "workers must be 1 to 1024, not 0"),
        (["--folder", "photos", "--out", "x", "--executor", "fast"], "unknown executor 'fast'"),
        (["--folder", "photos", "--out", "photos/00.png/x"], "cannot write"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(
    argv: list[str], words: str, trained: Path, folder: str, capsys: pytest.CaptureFixture[str]
):
    Path("photos/empty").mkdir()
    pq.write_table(pa.table({"text": ["a"]}), "text.parquet")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), "none.parquet")
    before = sorted(Path().rglob("*"))
    assert main(["predict", str(trained), *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err.splitlines()[-1] and "Traceback" not in err
    assert sorted(Path().rglob("*")) == before


# What lies below


def test_rows_are_read_forward_once(folder: str, monkeypatch: pytest.MonkeyPatch):
    file = written("a.parquet", range(9), 4)
    opened: list[str] = []
    real = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda name, **how: opened.append(str(name)) or real(name, **how))
    read = ForwardRows()
    assert list(read(file, 1, 3)) == [picture(1), picture(2)] and list(read(file, 5, 9)) == list(
        map(picture, range(5, 9))
    )
    assert opened == [file]
    assert list(read(file, 6, 7)) == [picture(6)] and len(opened) == 2  # back: from the start of its row group
    with pytest.raises(UserError, match=r"'a\.parquet' has 9 rows now, and had 11 or more"):
        list(read(file, 7, 11))


def test_no_more_is_read_ahead_than_asked():
    taken: list[int] = []

    def batches():
        for k in range(20):
            taken.append(k)
            yield [k, k + 100]

    found = read_ahead(batches(), lambda k: 2 * k, workers=2)
    assert next(found) == [0, 200] and len(taken) == AHEAD + 1
    assert next(found) == [2, 202] and len(taken) == AHEAD + 2
    assert list(found)[-1] == [38, 238] and len(taken) == 20
