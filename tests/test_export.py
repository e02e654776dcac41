"""`spnet export`: what is written runs without spnet and says what the network says; what disagrees is not written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from tiny import images, lively, paths

from spnet import DynamicNetwork, UserError, create_model, data
from spnet.cli import main
from spnet.inference.export import export_onnx, onnx_file, open_export, parse_path

EXAMPLE = Path(__file__).parent.parent / "examples" / "deploy_onnxruntime.py"


@pytest.fixture(scope="module")
def net() -> DynamicNetwork:
    return lively(create_model("resnet8", "convnet-aig", in_channels=1, image_size=8, seed=0))


@pytest.fixture(scope="module")
def three() -> DynamicNetwork:
    return lively(create_model("resnet8", "rdi-net", in_channels=1, image_size=8, seed=0))


@pytest.mark.parametrize("form", ["single", "batch"])
def test_a_file_decides_and_costs_what_the_network_does(net: DynamicNetwork, form: str, tmp_path: Path):
    exported = export_onnx(net, tmp_path / "net.onnx", form=form, images=images(7))
    assert (exported.paths, exported.images, exported.real) == (102, 39, 7) and exported.error < 1e-4
    assert exported.bytes == (tmp_path / "net.onnx").stat().st_size
    file = open_export(tmp_path / "net.onnx")
    with torch.no_grad():
        trace = net(images(9), heads=False)
    logits, decisions = file(images(9).numpy())
    np.testing.assert_allclose(logits, trace.logits.numpy(), atol=1e-4)
    assert decisions.tolist() == trace.decisions.tolist()
    assert file.macs(decisions).tolist() == trace.macs.tolist()


def test_a_static_path(net: DynamicNetwork, three: DynamicNetwork, tmp_path: Path):
    for network, path in ((net, [1, 0, 1]), (three, [2, 1, 0]), (net, None)):
        export_onnx(network, tmp_path / "net.onnx", form="path", path=path)
        file = open_export(tmp_path / "net.onnx")
        wanted = torch.tensor(network.options) - 1 if path is None else torch.tensor(path)
        with torch.no_grad():
            trace = network.forward_path(images(3), wanted, heads=False)
        logits, decisions = file(images(3).numpy())
        np.testing.assert_allclose(logits, trace.logits.numpy(), atol=1e-4)
        assert decisions.tolist() == [wanted.tolist()] * 3
        assert (file.macs(decisions) <= trace.macs.numpy()).all()  # no router is in the file


def test_only_portable_operators_are_written(net: DynamicNetwork, tmp_path: Path):
    export_onnx(net, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert [entry.domain for entry in model.opset_import] == [""]


def test_weights_lie_inside_the_branches(net: DynamicNetwork, tmp_path: Path):
    export_onnx(net, tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    branches = [a.g for node in graph.node if node.op_type == "If" for a in node.attribute]
    assert len(branches) == 6
    inside = sum(len(g.initializer) for g in branches)
    assert inside >= 12 and not any(len(t.dims) == 4 and t.dims[0] > 16 for t in graph.initializer)


def test_forcing_and_shifting_through_the_inputs(three: DynamicNetwork, tmp_path: Path):
    export_onnx(three, tmp_path / "net.onnx", form="batch")
    session = open_export(tmp_path / "net.onnx").session
    wanted = paths(three, 6).numpy()
    bias = np.zeros((6, 9), np.float32)
    np.put_along_axis(bias, wanted + 3 * np.arange(3), 1e30, 1)
    assert session.run(["decisions"], {"image": images(6).numpy(), "router_bias": bias})[0].tolist() == wanted.tolist()
    for shift, option in ((1e6, 2), (-1e6, 0)):
        feeds = {"image": images(6).numpy(), "decision_shift": np.asarray(shift, np.float32)}
        assert (session.run(["decisions"], feeds)[0] == option).all()


def test_the_calibrated_threshold_is_the_default(net: DynamicNetwork, tmp_path: Path):
    kept = net.decision_shift.clone()
    try:
        net.decision_shift.fill_(1e6)
        export_onnx(net, tmp_path / "net.onnx")
    finally:
        net.decision_shift.copy_(kept)
    assert open_export(tmp_path / "net.onnx")(images(4).numpy())[1].tolist() == [[1, 1, 1]] * 4


def test_a_graph_that_disagrees_is_not_written(net: DynamicNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = lively(create_model("resnet8", "convnet-aig", in_channels=1, image_size=8, seed=9), seed=9)
    file = tmp_path / "net.onnx"
    file.write_bytes(b"the file before")
    real = onnx_file.dynamic_model
    monkeypatch.setattr(onnx_file, "dynamic_model", lambda _, form, **how: real(other, form))
    with pytest.raises(RuntimeError, match="no file was written: its logits differ"):
        export_onnx(net, file)
    monkeypatch.setattr(onnx_file, "path_model", lambda _, path, **how: onnx_file_path(other, path))
    with pytest.raises(RuntimeError, match="no file was written"):
        export_onnx(net, file, form="path")
    assert file.read_bytes() == b"the file before" and list(tmp_path.iterdir()) == [file]


def onnx_file_path(net: DynamicNetwork, path: list[int]) -> onnx.ModelProto:
    from spnet.inference.runtimes.onnx.network import path_model

    return path_model(net, path)


def test_wrong_files_are_named(net: DynamicNetwork, tmp_path: Path):
    file = tmp_path / "net.onnx"
    export_onnx(net, file)
    content = file.read_bytes()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        open_export(tmp_path / "other.onnx")
    for damaged in (b"", b"not onnx at all", content[: len(content) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged or no ONNX file|not one that spnet export wrote"):
            open_export(file)
    model = onnx.load_from_string(content)
    for entry in model.metadata_props:
        if entry.key == "format":
            entry.value = "99"
    onnx.save(model, file)
    with pytest.raises(UserError, match="has format 99"):
        open_export(file)
    for k in range(200, len(content), len(content) // 40):  # one bit anywhere
        damaged = bytearray(content)
        damaged[k] ^= 4
        file.write_bytes(bytes(damaged))
        with pytest.raises(UserError, match=r"damaged|has format|not one that spnet"):
            open_export(file)
    del model.metadata_props[:]
    onnx.save(model, file)
    with pytest.raises(UserError, match="not one that spnet export wrote"):
        open_export(file)


def test_wrong_images_are_named(net: DynamicNetwork, tmp_path: Path):
    export_onnx(net, tmp_path / "net.onnx")
    file = open_export(tmp_path / "net.onnx")
    for wrong in (np.zeros((1, 3, 8, 8)), np.zeros((0, 1, 8, 8)), np.zeros((1, 8, 8))):
        with pytest.raises(UserError, match="takes images of"):
            file(wrong)
    with pytest.raises(UserError, match="images are uint8"):
        file(np.zeros((1, 1, 8, 8), np.int64))
    with pytest.raises(UserError, match="hold NaN"):
        file(np.full((1, 1, 8, 8), np.nan, np.float32))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"form": "batches"}, "Did you mean 'batch'"),
        ({"classes": ["a", "b"]}, "2 names for 10 classes"),
        ({"images": torch.full((1, 1, 8, 8), torch.nan)}, "hold NaN"),
    ],
)
def test_wrong_arguments_are_named(net: DynamicNetwork, tmp_path: Path, arguments: dict[str, Any], words: str):
    net.train()
    with pytest.raises(UserError, match=words):
        export_onnx(net, tmp_path / "net.onnx", **arguments)
    assert net.training and not list(tmp_path.iterdir())
    net.eval()


@pytest.mark.parametrize("text", ["11", "1112", "1a1", "", "999"])
def test_a_path_must_fit(net: DynamicNetwork, text: str, tmp_path: Path):
    with pytest.raises(UserError):
        export_onnx(net, tmp_path / "net.onnx", form="path", path=parse_path(net, text))
    assert not list(tmp_path.iterdir())


def test_paths_as_they_are_printed(net: DynamicNetwork):
    assert parse_path(net, "all") is None
    assert parse_path(net, "1|0|1") == parse_path(net, "1,0,1") == parse_path(net, "101") == [1, 0, 1]


BARE = """
import importlib.abc, runpy, sys

class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {"numpy", "onnxruntime", "PIL", "deploy_onnxruntime", *sys.stdlib_module_names}:
            raise ModuleNotFoundError(f"no {name} in a bare environment", name=name)

sys.meta_path.insert(0, Bare())
for name in ("torch", "torchvision", "spnet", "onnx"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} can be imported")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script in an interpreter that can import the standard library, numpy, onnxruntime and Pillow only."""


def pictures(folder: Path) -> list[Path]:
    """Digits of their own size, and what has to be changed: another size and shape, colour, a palette, lying on its
    side."""
    shades = torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    photo = Image.fromarray(shades)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    files = [folder / name for name in ("photo.png", "palette.png", "grey.png", "turned.png")]
    photo.save(files[0])
    photo.quantize(16).save(files[1])
    photo.convert("L").resize((9, 20)).save(files[2])
    photo.save(files[3], exif=exif)
    for i, digit in enumerate(data.load("digits").test.images[:8, 0].numpy()):
        files.append(folder / f"{i}.png")
        Image.fromarray(digit).save(files[-1])
    return files


@pytest.mark.parametrize("run", ["digits", "cifar10"])
def test_the_example_says_what_predict_says_without_spnet(
    run: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The file alone, in an environment of onnxruntime, numpy and Pillow."""
    source = {"digits": str(trained)}.get(run, run)  # one grey network, one of the package in colour
    file, shown = tmp_path / "net.onnx", pictures(tmp_path)
    assert main(["export", source, str(file), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["form"] == "single"
    if run == "digits":  # the images of the other are not in the package
        assert result["real"] == 64 and result["note"] == ""
    assert main(["predict", source, *map(str, shown), "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BARE, str(EXAMPLE), str(file), *map(str, shown)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{p['image']}: {p['class']}  path {''.join(map(str, p['path']))}  {p['macs'] / 1e6:.2f} MMACs"
        for p in predictions
    ]


def test_the_command_refuses(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = str(tmp_path / "net.onnx")
    for wrong in (["--batch-form", "--static-path", "all"], ["--static-path", "1"]):
        assert main(["export", str(trained), file, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["export", str(tmp_path / "nothing"), file]) == 2
    assert not list(tmp_path.iterdir())
    assert main(["export", str(trained), file, "--static-path", "all"]) == 0
