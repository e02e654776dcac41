"""Wrong input through the real command line: exit code 2, one line that says what and how to mend it, no leftovers."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from spnet.cli import main

TINY = ("--backbone", "resnet8", "--epochs", "2", "--subset", "60", "--batch-size", "30")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command that must fail with `code`; returns its one line. The working folder stays as it was."""
    monkeypatch.chdir(tmp_path)

    def start(*argv: object, code: int = 2) -> str:
        before = contents(tmp_path)
        capsys.readouterr()
        assert main([str(part) for part in argv]) == code
        out, err = capsys.readouterr()
        *progress, line = err.splitlines()
        assert out == "" and line.startswith("spnet: ") and "Traceback" not in err
        assert all(" -> " in text or text.startswith("epoch ") for text in progress), err
        if code == 2:
            assert contents(tmp_path) == before
        return line

    return start


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A finished run to damage."""
    return shutil.copytree(trained, tmp_path / "copy")


# Words that do not exist


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], "unknown verb 'trian'. Did you mean 'train'?"),
        (["train", "--epoch", "3"], "unknown option '--epoch'. Did you mean '--epochs'?"),
        (["train", "--taget=0.5"], "unknown option '--taget'. Did you mean '--target'?"),
        (["train", "digits"], "unknown argument 'digits'"),
        (["train", "--epochs"], "expected one argument"),
        (["train", "--method", "spnt"], "unknown method 'spnt'. Did you mean 'spnet'?"),
        (["train", "--method", "convnet-aig", "--with", "sp-net"], "Did you mean 'spnet'?"),
        (["train", "--with", "spnet"], "wrapper already; name the method inside: --method dynamic --with spnet"),
        (["train", "--backbone", "resnet18"], "unknown backbone 'resnet18'. Known: resnet8, resnet14, resnet20,"),
        (["train", "--backbone", "resent20"], "unknown backbone 'resent20'. Did you mean 'resnet20'?"),
        (["train", "--data", "cifar11"], "unknown data 'cifar11'. Known: digits, cifar10, cifar100,"),
        (["train", "--data", "folder"], "needs a path"),
        (["train", "--data", "folder:nowhere"], "there is no file or folder 'nowhere'"),
        (["train", "--recipe", "digit"], "unknown recipe 'digit'. Did you mean 'digits'?"),
        (["train", "--method", "static", "--target", "0.5"], "unknown option '--target'"),
        (["train", "--preset", "papers"], "unknown preset 'papers'. Did you mean 'paper'?"),
        (["list", "method"], "unknown list 'method'. Did you mean 'methods'?"),
        (["list"], "the following arguments are required: KIND"),
        (["eval"], "the following arguments are required: RUN"),
        (["eval", "nowhere"], "'nowhere' is neither a run folder nor a shipped network"),
        (["predict", "nowhere", "a.png"], "'nowhere' is neither a run folder nor a shipped network"),
        (["report", "nowhere"], "'nowhere' is neither a run folder nor a shipped network"),
        (["train", "--resume", "nowhere"], "nowhere is not a run folder: it does not exist"),
        (["train", *TINY, "--init", "nowhere"], "'nowhere' is neither a run folder nor a shipped network"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unknown_words(argv: list[str], words: str, refused):
    assert words in refused(*argv)


# Values that make no sense


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--epochs", "-3"], "epochs must be at least 1, not -3"),
        (["--epochs", "0"], "epochs must be at least 1, not 0"),
        (["--epochs", "many"], "'epochs' wants a whole number, not 'many'"),
        (["--static-share", "0.5", "--epochs", "1"], "2 phases and needs at least as many epochs, not 1"),
        (["--batch-size", "1"], "batch_size must be at least 2"),
        (["--subset", "40", "--batch-size", "41"], "batch_size 41 is larger than the 40 training images: lower it"),
        (["--subset", "5000"], "a subset of 5000 images cannot be taken from 1347"),
        (["--lr", "nan"], "'lr' wants a number, not 'nan'"),
        (["--lr", "-1"], "lr must be positive"),
        (["--target", "1.2"], "a target rate lies between 0 and 1, not 1.2"),
        (["--targets", "0.5,0.5"], "one value a block: 3 for resnet8, not 2"),
        (["--stage-weights", "1,1"], "one weight per stage: 3 for resnet8, not 2"),
        (["--logits-temperature", "2"], "has no effect on logits_form 'mse'"),
        (["--budget", "70"], "share of the static cost, such as 0.7; not 70"),
        (["--time-limit", "0"], "--time-limit wants a positive number"),
        (["--time-limit", "nan"], "--time-limit wants a positive number"),
        (["--time-limit", "soon"], "invalid float value: 'soon'"),
        (["--devices", "0"], "--devices must be at least 1, not 0"),
        (["--validation", "1"], "validation lies in [0, 1)"),
        (["--nesterov", "maybe"], "wants true or false, not 'maybe'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_settings(argv: list[str], words: str, refused):
    assert words in refused("train", *TINY, "--out", "new", *argv)


def test_a_budget_for_a_static_network(refused):
    assert "static" in refused("train", "--method", "static", *TINY, "--budget", "0.7")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--executor", "gatherd"], "unknown executor 'gatherd'. Did you mean 'gathered'?"),
        (["--threads", "0"], "threads must be at least 1, not 0"),
        (["--threads", "two"], "invalid int value: 'two'"),
        (["--budget", "0"], "budget is a share of the static cost"),
        (["--budget-ms", "0"], "budget_ms is a time per image in milliseconds, such as 3.0; not 0.0"),
        (["--budget-ms", "nan"], "budget_ms is a time per image in milliseconds, such as 3.0; not nan"),
        (["--budget-ms", "soon"], "invalid float value: 'soon'"),
        (["--budget-ms", "3", "--budget", "0.7"], "argument --budget: not allowed with argument --budget-ms"),
        (["--budget-ms", "3", "--executor", "masked"], "takes the same time whatever is decided: use 'auto'"),
        (["--budget", "0.01"], "budget 0.01 is out of reach: this network costs 0."),
        (["--exit-confidence", "90"], "exit_confidence is a probability, such as 0.9; not 90.0"),
        (["--max-cost", "70"], "max_cost is a share of the static cost, such as 0.7; not 70"),
        (["--max-cost", "0.01"], "max_cost 0.01 is out of reach: the cheapest path costs 0."),
        (["--sweep", "--budget", "0.7"], "--sweep sets budgets and exits itself: leave out --budget."),
        (["--sweep", "--budget-ms", "3"], "--sweep sets budgets and exits itself: leave out --budget-ms."),
        (["--sweep", "--max-cost", "1", "--exit-confidence", "0.9"], "leave out --max-cost and --exit-confidence."),
        (["--sweep", "--executor", "gatherd"], "unknown executor 'gatherd'. Did you mean 'gathered'?"),
        (["--out", "somewhere"], "--out is where a sweep goes: add --sweep, or leave it out"),
        (["--data", "digit"], "unknown data 'digit'. Did you mean 'digits'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_evaluations(argv: list[str], words: str, trained: Path, refused):
    assert words in refused("eval", trained, *argv)


def test_a_sweep_of_a_static_network(refused, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spnet.data.load", lambda spec: pytest.fail("nothing has to be read for this"))
    assert "a static network has no decisions to sweep" in refused("eval", "cifar10-static", "--sweep")


def test_a_sweep_that_cannot_be_written(trained: Path, tmp_path: Path, refused, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spnet.inference.sweep.sweep", lambda *_, **__: pytest.fail("minutes spent for nothing"))
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused("eval", trained, "--sweep", "--out", tmp_path / "file")


# Data


def save(path: Path, size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode).save(path)
    return path


def folder(path: Path, classes: int = 2, size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    for label in range(classes):
        for i in range(5):
            save(path / f"class{label}" / f"{i}.png", size, mode)
    return path


def parquet(path: Path, labels: list[int], **metadata: object) -> Path:
    png = save(path.parent / "pixel.png").read_bytes()
    table = pa.table({"image": [{"bytes": png, "path": None}] * len(labels), "label": labels})
    pq.write_table(table, path)
    return path


def test_no_class_at_all(refused, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "needs at least two class folders with images, but has none" in refused("train", "--data", "folder:empty")


def test_one_class_only(refused, tmp_path: Path):
    folder(tmp_path / "one", classes=1)
    assert "needs at least two class folders with images, but has only 'class0'" in refused(
        "train", "--data", "folder:one"
    )


def test_an_empty_class(refused, tmp_path: Path):
    (folder(tmp_path / "set") / "class2").mkdir()
    assert "class2' has no images; add some or remove it" in refused("train", "--data", "folder:set")


def test_pictures_of_several_sizes(refused, tmp_path: Path):
    save(folder(tmp_path / "set") / "class0" / "9.png", (9, 9))
    assert "folder:set?size=" in refused("train", "--data", "folder:set")


@pytest.mark.parametrize("damage", ["text", "truncated", "empty"])
def test_pictures_that_cannot_be_read(damage: str, refused, tmp_path: Path):
    victim = folder(tmp_path / "set") / "class1" / "3.png"
    whole = victim.read_bytes()
    victim.write_bytes({"text": b"not a picture", "truncated": whole[: len(whole) // 2], "empty": b""}[damage])
    line = refused("train", "--data", "folder:set")
    assert "3.png" in line and "repair or remove it" in line


def test_corrupt_parquet(refused, tmp_path: Path):
    whole = parquet(tmp_path / "set.parquet", [0, 1] * 5).read_bytes()
    (tmp_path / "set.parquet").write_bytes(whole[: len(whole) // 2])
    assert "set.parquet" in refused("train", "--data", "parquet:set.parquet")


def test_labels_out_of_range(refused, tmp_path: Path):
    parquet(tmp_path / "set.parquet", [0, 1, 0, -1, 1])
    assert "has label -1; labels must be 0 or more" in refused("train", "--data", "parquet:set.parquet")


@pytest.mark.parametrize(("size", "mode", "words"), [((9, 8), "L", "(1, 8, 9)"), ((8, 8), "RGB", "(3, 8, 8)")])
def test_evaluating_on_images_of_another_kind(size, mode: str, words: str, trained: Path, refused, tmp_path: Path):
    folder(tmp_path / "set", 10, size, mode)
    line = refused("eval", trained, "--data", "folder:set")
    assert words in line and "this network takes (1, 8, 8) with 10" in line


def test_evaluating_on_other_classes(trained: Path, refused, tmp_path: Path):
    folder(tmp_path / "set", classes=3)
    assert "with 3 classes; this network takes (1, 8, 8) with 10" in refused("eval", trained, "--data", "folder:set")


def test_predicting_what_is_no_picture(trained: Path, refused, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(save(tmp_path / "b.png").read_bytes()[:60])
    assert "a.png" in refused("predict", trained, "a.png")
    assert "c.png" in refused("predict", trained, "c.png")
    assert "unknown executor" in refused("predict", trained, "b.png", "--executor", "fast")


# Places that cannot be written


def test_a_file_where_the_run_folder_should_be(refused, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for out in ("file", "file/run"):
        assert "cannot write" in refused("train", "--method", "static", *TINY, "--out", out)
    assert "choose another --out" in refused("train", "--method", "static", *TINY, "--out", "file").lower()


def test_a_page_that_cannot_be_written(trained: Path, refused, tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused("report", trained, "--out", "file/page.html")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(refused, tmp_path: Path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refused("train", "--method", "static", *TINY, "--out", "locked/run")


def test_a_full_disk_at_the_start(refused, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    line = refused("train", "--method", "static", *TINY, "--out", "run")
    assert "No space left on device" in line and "make room" in line


@pytest.fixture
def small_files():
    """A real limit on the size of files, as a full disk: `small_files(n)` lets writing more than n bytes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("size", "first"), [(10, "events/"), (300, "events/"), (100_000, "model.safetensors")])
def test_a_full_disk_in_mid_training_keeps_the_last_state(
    size: int, first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], small_files
):
    run = tmp_path / "run"
    assert main(["train", "--method", "static", *TINY, "--out", str(run), "--time-limit", "1e-9"]) == 0
    before = (run / "state" / "resume.pt").read_bytes()
    capsys.readouterr()
    small_files(size)
    code = main(["train", "--resume", str(run)])
    small_files(resource.RLIM_INFINITY)
    *_, line = capsys.readouterr().err.splitlines()
    assert code == 2 and line.startswith(f"spnet: cannot write {run}/{first}") and "make room" in line
    assert (run / "state" / "resume.pt").read_bytes() == before
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]
    assert main(["train", "--resume", str(run)]) == 0


# Damaged and foreign runs


@pytest.mark.parametrize("verb", [["eval"], ["predict"], ["train", "--init"]], ids=" ".join)
@pytest.mark.parametrize("size", [0, 7, 5000])
def test_truncated_weights(verb: list[str], size: int, copy: Path, refused, tmp_path: Path):
    os.truncate(copy / "model.safetensors", size)
    more = {"eval": [], "predict": [save(tmp_path / "a.png")], "train": [*TINY, "--out", "new"]}[verb[0]]
    line = refused(*verb, copy, *more)
    assert "model.safetensors" in line and ("damaged" in line or "cannot be read" in line)


def test_missing_weights(copy: Path, refused):
    (copy / "model.safetensors").unlink()
    assert "does not exist: the run has not finished an epoch" in refused("eval", copy)


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_truncated_resume_state(size: int, copy: Path, refused):
    (copy / "result.json").unlink()
    os.truncate(copy / "state" / "resume.pt", size)
    assert "resume.pt is damaged and cannot be resumed: restore it or start the run anew" in refused(
        "train", "--resume", copy
    )


def test_missing_resume_state(copy: Path, refused):
    (copy / "result.json").unlink()
    (copy / "state" / "resume.pt").unlink()
    assert "cannot be resumed: it has no state/resume.pt" in refused("train", "--resume", copy)


def test_a_resume_state_that_would_run_code(copy: Path, refused, tmp_path: Path):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    (copy / "result.json").unlink()
    (copy / "state" / "resume.pt").write_bytes(pickle.dumps(Evil()))
    assert "cannot be resumed" in refused("train", "--resume", copy)
    torch.save({"format": 1, "harm": Evil()}, copy / "state" / "resume.pt")
    assert "cannot be resumed" in refused("train", "--resume", copy)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "text", ["", '{"format": 1, "meth', "[]", "null", "\udcff"], ids=["empty", "cut", "list", "null", "bytes"]
)
def test_damaged_config(text: str, copy: Path, refused):
    (copy / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    for argv in (["eval", copy], ["train", "--resume", copy]):
        line = refused(*argv)
        assert "config.json" in line or "format" in line


def change(run: Path, **values: object) -> None:
    """Overwrite entries of a run's config.json; None removes one."""
    record = {**json.loads((run / "config.json").read_text()), **values}
    kept = {key: value for key, value in record.items() if value is not None}
    (run / "config.json").write_text(json.dumps(kept))


@pytest.mark.parametrize("key", ["method", "settings", "classes", "input_shape", "mean"])
def test_config_that_lacks_an_entry(key: str, copy: Path, refused):
    change(copy, **{key: None})
    assert f"lacks '{key}'" in refused("eval", copy)


def test_config_with_an_unknown_setting(copy: Path, refused):
    change(copy, settings={"taget": 0.5})
    assert "unknown setting 'taget'. Did you mean 'target'?" in refused("eval", copy)


def test_a_run_of_another_version(copy: Path, refused):
    change(copy, format=99)
    for argv in (["eval", copy], ["train", "--resume", copy], ["report", copy, "--out", "page.html"]):
        assert "format 99" in refused(*argv)


def test_a_state_of_another_version(copy: Path, refused):
    (copy / "result.json").unlink()
    path = copy / "state" / "resume.pt"
    torch.save({**torch.load(path, weights_only=True), "format": 99}, path)
    assert "written by another version of spnet" in refused("train", "--resume", copy)


def test_a_run_of_another_method(copy: Path, refused):
    change(copy, method="convnet-aig", settings={})
    assert "model.safetensors belongs to another network" in refused("eval", copy)
    (copy / "result.json").unlink()
    assert "resume.pt belongs to another network" in refused("train", "--resume", copy)


def test_a_folder_that_is_no_run(refused, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for argv in (["eval", "folder"], ["train", "--resume", "folder"], ["report", "folder"]):
        assert "not a run folder: it has no config.json" in refused(*argv)
    (tmp_path / "file").write_text("")
    assert "not a run folder" in refused("eval", "file")


def test_a_folder_that_holds_a_run_already(copy: Path, refused):
    assert "holds a run already: continue it with --resume" in refused("train", *TINY, "--out", copy)


def test_resume_takes_no_settings(copy: Path, refused):
    for flags in (["--epochs", "9"], ["--method", "static"], ["--out", "x"], ["--init", copy], ["--recipe", "digits"]):
        assert "--resume takes every setting from the folder" in refused("train", "--resume", copy, *flags)


def test_a_cut_log_does_not_matter(copy: Path, trained: Path):
    """The last line of metrics.jsonl may be half a line after a power cut; the resume state holds all rows."""
    (copy / "result.json").unlink()
    os.truncate(copy / "metrics.jsonl", 150)
    assert main(["train", "--resume", str(copy), "--json"]) == 0
    rows = [json.loads(line)["epoch"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((copy / "result.json").read_text())
    assert rows == [1, 2, 3] and result["last"]["n"] == 450
    assert result["train_images"] == 3 * 512


# Our fault, or bad luck


def test_a_diverging_run(refused, tmp_path: Path):
    line = refused(
        "train", *TINY, "--lr", "1e30", "--clip-value", "none", "--out", "run", "--static-share", "0", code=1
    )
    assert "the run diverged: 'classification' was not finite at step 2 of this epoch" in line and "lower --lr" in line
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"config.json", "state", "events"}


def test_an_interrupted_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spnet.training.fit.fit", interrupted)
    assert main(["train", *TINY, "--out", str(tmp_path / "run")]) == 130
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "spnet: interrupted; a run goes on with --resume, a list when it is called again."
    )
