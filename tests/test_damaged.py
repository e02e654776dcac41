"""Files that say what cannot be: one line and exit code 2, nothing written, and one flipped bit is noticed."""

import json
import math
import runpy
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from spnet import ImagesWarning, UserError, create_model, load
from spnet.cli import main
from spnet.inference.export import export_onnx, open_export
from spnet.runs.weights import to_bytes

EXAMPLE = Path(__file__).parent.parent / "examples" / "deploy_onnxruntime.py"


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A finished run to damage."""
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture
def stopped(copy: Path) -> Path:
    """A run whose last epochs are still to come: two of three are done."""
    (copy / "result.json").unlink()
    path = copy / "state" / "resume.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "epoch": 2, "rows": state["rows"][:2]}, path)
    return copy


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def start(*argv: object) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        capsys.readouterr()
        code = main([str(part) for part in argv])
        out, err = capsys.readouterr()
        *_, line = err.splitlines()
        assert code == 2 and out == "" and line.startswith("spnet: ") and "Traceback" not in err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return line

    return start


def picture(path: Path) -> Path:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    return path


# Weights


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers(value: float, copy: Path, refused, tmp_path: Path):
    state = load_file(copy / "model.safetensors")
    state["backbone.head.weight"][1, 2] = value
    save_file(state, copy / "model.safetensors")
    wanted = f"{copy / 'model.safetensors'} is damaged ('backbone.head.weight' holds NaN or infinite values)"
    image = picture(tmp_path / "a.png")
    for argv in (["predict", copy, image], ["eval", copy], ["export", copy, "x.onnx"], ["bench", copy]):
        assert wanted in refused(*argv)
    train = ["train", "--backbone", "resnet8", "--epochs", "2", "--init", copy, "--out", "new"]
    assert "'backbone.head.weight' holds NaN" in refused(*train)
    assert main(["report", str(copy), "--out", str(tmp_path / "page.html")]) == 0
    assert "holds NaN or infinite values" in (tmp_path / "page.html").read_text()
    with pytest.raises(UserError, match="holds NaN"):
        load(copy)


def test_variances_below_zero(copy: Path, refused, tmp_path: Path):
    """Finite, and signed as whole: their roots are no numbers."""
    state = load_file(copy / "model.safetensors")
    name = next(name for name in state if name.endswith("running_var"))
    state[name][0] = -1
    (copy / "model.safetensors").write_bytes(to_bytes(state))
    image = picture(tmp_path / "a.png")
    for argv in (["predict", copy, image], ["predict", copy, image, "--executor", "onnx"], ["export", copy, "x.onnx"]):
        assert f"is damaged ('{name}' holds variances below 0)" in refused(*argv)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"no file of torch", b"\x80\x02.", b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00lsq\x01\x85R."],
)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_state_dict_that_cannot_be_read(ending: str, content: bytes, refused, tmp_path: Path):
    file = tmp_path / f"own{ending}"
    file.write_bytes(content)
    line = refused("train", "--backbone", "resnet8", "--epochs", "1", "--init", file, "--out", "new")
    assert f"{file} holds no state dict that can be read without running code" in line


def test_one_flipped_bit_of_the_weights(copy: Path, refused, tmp_path: Path):
    path = copy / "model.safetensors"
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    image = picture(tmp_path / "a.png")
    for place in (8 + header, 8 + header + 4001, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        line = refused("predict", copy, image)
        assert "model.safetensors is damaged (its bytes are not those that were written): restore it" in line
        assert "model.safetensors is damaged" in refused("eval", copy)
    path.write_bytes(whole)
    assert main(["predict", str(copy), str(image)]) == 0


def test_weights_without_a_checksum_are_read(copy: Path):
    before = load(copy).state_dict()
    save_file(load_file(copy / "model.safetensors"), copy / "model.safetensors")
    after = load(copy).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["cifar10", "cifar10-fast", "cifar10-static"])
def test_shipped_weights_carry_their_checksum(name: str):
    from safetensors import safe_open

    from spnet.runs.open import SHIPPED
    from spnet.runs.weights import checksum

    path = SHIPPED / name / "model.safetensors"
    with safe_open(path, "pt") as file:
        assert file.metadata()["sha256"] == checksum(load_file(path))


def test_one_flipped_bit_of_an_exported_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    net = create_model("resnet8", "dynamic", in_channels=1, image_size=8, hidden=4, seed=0)
    file, image = tmp_path / "net.onnx", picture(tmp_path / "a.png")
    export_onnx(net, file)
    whole = file.read_bytes()
    monkeypatch.setattr(sys, "argv", ["deploy", str(file), str(image)])
    runpy.run_path(str(EXAMPLE))
    for place in range(100, len(whole), len(whole) // 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            open_export(file)
        with pytest.raises(SystemExit, match="is damaged"):
            runpy.run_path(str(EXAMPLE))


# Images


def test_floats_that_look_like_bytes_are_warned_about(tmp_path: Path):
    net = create_model("resnet8", "dynamic", in_channels=1, image_size=8, hidden=4, seed=0)
    export_onnx(net, tmp_path / "net.onnx")
    file = open_export(tmp_path / "net.onnx")
    grey = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8)).astype(np.float32)
    with pytest.warns(ImagesWarning, match=r"these reach 25\d: give bytes as uint8") as told:
        file(grey)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file(grey / 255)
        file(np.random.default_rng(0).standard_normal((64, 1, 8, 8)).astype(np.float32))


# config.json


def change(run: Path, **values: object) -> None:
    record = {**json.loads((run / "config.json").read_text()), **values}
    (run / "config.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "values",
    [
        {"input_shape": [1, 10**9, 10**9]},
        {"input_shape": [10**9, 8, 8], "mean": [0.3], "std": [0.3]},
        {"input_shape": [0, 8, 8], "mean": [], "std": []},
        {"input_shape": [1, -8, 8]},
        {"input_shape": [1, 10**30, 8]},
        {"mean": [math.nan]},
        {"mean": [math.inf]},
        {"mean": [0.3, 0.3]},
        {"std": [0.0]},
        {"std": [-1.0]},
        {"std": [10**400]},
        {"classes": [1, 2, 3]},
        {"classes": [["a"]] * 10},
        {"settings": {"hidden": 10**12}},
        {"settings": {"hidden": 10**400}},
        {"settings": {"hidden": math.nan}},
        {"settings": {"epochs": math.inf}},
        {"settings": {"lr": 10**400}},
        {"settings": {"targets": [[0.5]]}},
        {"settings": {"hidden": {"a": 1}}},
        {"started_from": "x"},
        {"commits": {"a": 1}},
    ],
    ids=lambda values: str(values)[:50],
)
def test_configs_that_cannot_be(values: dict[str, Any], copy: Path, refused):
    sys.set_int_max_str_digits(0)
    change(copy, **values)
    (copy / "result.json").unlink()
    for argv in (["eval", copy], ["train", "--resume", copy], ["report", copy, "--out", "page.html"]):
        assert len(refused(*argv)) < 400


def test_whole_numbers_are_numbers(copy: Path, tmp_path: Path):
    """A mean of 2 is as good as one of 2.0; it used to make a network of whole numbers."""
    pytest.importorskip("onnxruntime")
    change(copy, mean=[2], std=[1])
    assert load(copy).mean.dtype == torch.float32
    assert main(["export", str(copy), str(tmp_path / "net.onnx")]) == 0


def test_a_line_lists_no_hundred_names(copy: Path, refused):
    change(copy, backbone="torchvision:resnet1")
    line = refused("eval", copy)
    assert "unknown torchvision network 'resnet1'" in line and " altogether)" in line and len(line) < 1000


@pytest.mark.parametrize("name", ["config.json", "result.json", "metrics.jsonl"])
def test_nesting_without_end(name: str, copy: Path, refused):
    (copy / name).write_text("[" * 100_000 + "]" * 100_000 + "\n")
    if name == "config.json":
        assert "config.json cannot be read as JSON" in refused("eval", copy)
    else:
        assert main(["report", str(copy), "--out", str(copy / "page.html")]) == 0


# Resume states


def lie(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = run / "state" / "resume.pt"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


LIES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "epoch below 0": ("epoch", lambda s: s.update(epoch=-1)),
    "epoch beyond the end": ("epoch", lambda s: s.update(epoch=10**9)),
    "epoch as text": ("epoch", lambda s: s.update(epoch="2")),
    "epoch as a switch": ("epoch", lambda s: s.update(epoch=True)),
    "epoch as a tensor": ("epoch", lambda s: s.update(epoch=torch.tensor(2))),
    "epoch that the rows do not reach": ("rows", lambda s: s.update(epoch=3)),
    "no rows": ("rows", lambda s: s.update(rows=[])),
    "rows of None": ("rows", lambda s: s.update(rows=None)),
    "rows of numbers": ("rows", lambda s: s.update(rows=[1, 2])),
    "rows out of order": ("rows", lambda s: s["rows"].reverse()),
    "a row without seconds": ("rows", lambda s: s["rows"][0].pop("seconds")),
    "a row with text for a number": ("rows", lambda s: s["rows"][1].update(seconds="long")),
    "a row with a tensor": ("rows", lambda s: s["rows"][1].update(more=torch.zeros(2))),
    "weights that are NaN": ("net", lambda s: s["net"]["backbone.head.bias"].fill_(math.nan)),
    "decisions of other images": ("previous_decisions", lambda s: s.update(previous_decisions=torch.zeros(3, 3))),
    "decisions as text": ("previous_decisions", lambda s: s.update(previous_decisions="none")),
    "no optimizer": ("optimizer", lambda s: s.update(optimizer=None)),
    "an optimizer of another kind": ("optimizer", lambda s: s.update(optimizer={"state": {}, "param_groups": [{}]})),
    "another weight decay": ("optimizer", lambda s: s["optimizer"]["param_groups"][0].update(weight_decay="much")),
    "momentum of another shape": (
        "optimizer",
        lambda s: s["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(7)),
    ),
    "momentum that is NaN": ("optimizer", lambda s: s["optimizer"]["state"][0]["momentum_buffer"].fill_(math.nan)),
    "momentum of nobody": ("optimizer", lambda s: s["optimizer"]["state"].update({999: {"momentum_buffer": None}})),
}


@pytest.mark.parametrize("name", LIES)
def test_resume_states_that_lie(name: str, stopped: Path, refused):
    field, change = LIES[name]
    lie(stopped, change)
    assert f"resume.pt is damaged: it is no state of this run (its '{field}' cannot be). Restore it" in refused(
        "train", "--resume", stopped
    )


@pytest.mark.parametrize("field", ["net", "method"])
@pytest.mark.parametrize("value", [None, 3, "x", [1], {"a": 1}], ids=str)
def test_resume_states_of_other_types(field: str, value: object, stopped: Path, refused):
    lie(stopped, lambda state: state.update({field: value}))
    line = refused("train", "--resume", stopped)
    assert "resume.pt is damaged" in line or "resume.pt belongs to another network" in line


def test_a_state_that_lacks_everything_is_said_in_a_short_line(stopped: Path, refused):
    lie(stopped, lambda state: state.update(net={"more": torch.zeros(1)}, method={}))
    line = refused("train", "--resume", stopped)
    assert "resume.pt belongs to another network: Unexpected key" in line and len(line) < 400
    lie(stopped, lambda state: state.update(net={}))
    line = refused("train", "--resume", stopped)
    assert 'another network: Missing key(s) in state_dict: "' in line and " more." in line and len(line) < 400


def test_one_flipped_bit_of_the_resume_state(stopped: Path, refused):
    path = stopped / "state" / "resume.pt"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert "resume.pt is damaged and cannot be resumed" in refused("train", "--resume", stopped)


def test_what_torch_warns_of_while_it_reads_is_not_told(stopped: Path, refused, monkeypatch: pytest.MonkeyPatch):
    """Damaged bytes can make it index tensors in ways that it is about to drop, before it gives up."""

    def load(*_: Any, **__: Any) -> None:
        warnings.warn("using a non-tuple sequence for multidimensional indexing is deprecated", stacklevel=2)
        raise RuntimeError("spoilt")

    monkeypatch.setattr(torch, "load", load)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert "resume.pt is damaged" in refused("train", "--resume", stopped)
        assert "spoilt" in refused(
            "train", "--init", stopped / "state" / "resume.pt", "--out", "new", "--backbone", "resnet8"
        )
    assert not told


def test_a_true_state_goes_on(stopped: Path):
    assert main(["train", "--resume", str(stopped)]) == 0


# metrics.jsonl and result.json


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"losses": [1]}, "losses"),
        ({"losses": {"path": "x"}}, "losses/path"),
        ({"execution_rate_per_block": 0.5}, "execution_rate_per_block"),
        ({"execution_rate_per_block": [{}]}, "execution_rate_per_block/0"),
        ({"stage_accuracy": "x"}, "stage_accuracy"),
        ({"always_run": ["a"]}, "always_run/0"),
        ({"epoch": "one"}, "epoch"),
        ({"epoch": 10**30}, "epoch"),
        ({"phase": {}}, "phase"),
        ({"loss": True}, "loss"),
    ],
)
def test_logs_of_other_types(values: dict[str, Any], name: str, copy: Path, refused):
    first, *rest = (copy / "metrics.jsonl").read_text().splitlines()
    (copy / "metrics.jsonl").write_text("\n".join([first, json.dumps({**json.loads(rest[0]), **values}), *rest[1:]]))
    line = refused("report", copy, "--out", "page.html")
    assert line.endswith(f"metrics.jsonl, line 2: '{name}' is of the wrong kind. Restore the file or delete it.")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"final": 3}, "final"),
        ({"final": {"accuracy": "97"}}, "final/accuracy"),
        ({"budgets": {"a": 1}}, "budgets"),
        ({"budgets": [{"budget": []}]}, "budgets/0/budget"),
        ({"made_with": "here"}, "made_with"),
        ({"end_of_training": [1]}, "end_of_training"),
        ({"label": 5}, "label"),
        ({"best_epoch": 3}, "best_epoch"),
    ],
)
def test_records_of_other_types(values: dict[str, Any], name: str, copy: Path, refused):
    record = {**json.loads((copy / "result.json").read_text()), **values}
    (copy / "result.json").write_text(json.dumps(record))
    for argv in (["report", copy, "--out", "page.html"],):
        assert f"result.json is damaged: '{name}' is of the wrong kind." in refused(*argv)


# Arguments


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_classes": 0}, "num_classes is a whole number from 1 to 1048576, not 0"),
        ({"num_classes": -1}, "num_classes"),
        ({"num_classes": 2.5}, "num_classes"),
        ({"num_classes": "10"}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"num_classes": None}, "num_classes"),
        ({"image_size": -5}, "image_size is a whole number from 1 to 8192, not -5"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": 32.0}, "image_size"),
        ({"image_size": (8,)}, "image_size is a whole number or"),
        ({"image_size": (8, 8, 8)}, "image_size is a whole number or"),
        ({"image_size": (8, 10**12)}, "image_size"),
        ({"image_size": None}, "image_size"),
        ({"in_channels": 0}, "in_channels"),
        ({"in_channels": 10**12}, "in_channels"),
    ],
)
def test_sizes_that_no_network_has(values: dict[str, Any], words: str):
    with pytest.raises(UserError) as told:
        create_model("resnet8", "dynamic", **values)
    assert words in str(told.value)


def test_whole_numbers_of_numpy_are_whole_numbers():
    net = create_model("resnet8", "dynamic", num_classes=np.int64(4), image_size=np.int32(8))  # type: ignore[arg-type]
    assert net.num_classes == 4 and type(net.static_macs) is int


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "x/" * 3000], ids=["long", "NUL", "deep"])
def test_names_that_no_file_has(name: str, copy: Path, refused, tmp_path: Path):
    image = picture(tmp_path / "a.png")
    tiny = ["--backbone", "resnet8", "--subset", "64", "--batch-size", "32", "--epochs", "1", "--time-limit", "1e-9"]
    for argv in (
        *(["train", *tiny, "--out", name], ["train", "--resume", name], ["train", *tiny, "--init", name]),
        *(
            ["predict", name, image],
            ["predict", copy, name],
            ["eval", name],
            ["eval", copy, "--data", f"folder:{name}"],
        ),
        *(["report", name], ["report", copy, "--out", name], ["export", copy, name], ["bench", name]),
    ):
        assert len(refused(*argv)) < 1000
    with pytest.raises(UserError):
        load(name)


@pytest.mark.parametrize("name", [None, 3, [], b"resnet8"])
def test_what_is_no_name(name: Any):
    with pytest.raises(UserError, match="is known by its name, such as '"):
        create_model(name, "dynamic")
    with pytest.raises(UserError, match="is known by its name, such as '"):
        create_model("resnet8", name)


@pytest.mark.parametrize("run", [None, 3, [], create_model])
def test_what_is_no_run(run: Any):
    with pytest.raises(UserError, match="a run is a folder or the name of a shipped network, not "):
        load(run)


# Memory


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("spnet.training.loop.train_epoch", full)
    assert main(["train", "--backbone", "resnet8", "--epochs", "2", "--out", str(tmp_path / "run")]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("spnet: out of memory: lower --batch-size, or take a smaller --backbone.")


def test_other_runtime_errors_are_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spnet.cli.list.run", lambda args: exec("raise RuntimeError('a fault')"))
    with pytest.raises(RuntimeError, match="a fault"):
        main(["list", "methods"])
