"""`spnet export --stages`: static files from router to router, which say and cost what the network says and costs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from tiny import images, lively

import spnet
from spnet import Cascade, DynamicNetwork, UserError, create_model
from spnet.cli import main
from spnet.inference.export import cut, export_stages, stages
from spnet.inference.export.run_stages import RUNTIMES, Stages


def tiny(method: str, backbone: str = "resnet8", **settings: Any) -> DynamicNetwork:
    return lively(create_model(backbone, method, in_channels=1, image_size=8, seed=0, **settings))


@pytest.fixture(scope="module", autouse=True)
def few_paths() -> Iterator[None]:
    """Every option of every block is compared; beyond that a few random paths are enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "RANDOM_PATHS", 4)
        yield


@pytest.fixture(scope="module")
def net() -> DynamicNetwork:
    return tiny("convnet-aig")


@pytest.fixture(scope="module")
def folder(net: DynamicNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages") / "net"
    exported = export_stages(net, folder, classes=[f"digit {k}" for k in range(10)], images=images(7))
    assert (exported.images, exported.real, exported.exits, exported.paths) == (15, 7, 0, 8) and exported.error < 1e-4
    assert exported.files == len(list(folder.glob("*.onnx"))) == 7
    assert exported.bytes == sum(file.stat().st_size for file in folder.glob("*.onnx"))
    return folder


def operators(folder: Path) -> set[str]:
    return {node.op_type for file in folder.glob("*.onnx") for node in onnx.load(file).graph.node}


def alike(runner: Stages, net: DynamicNetwork, exit_confidence: float | None = None, count: int = 12) -> None:
    """What the files decide, say and cost is what the network does."""
    x = images(count, net.input_shape, seed=3)
    with torch.no_grad():
        trace = net(x, heads=exit_confidence is not None, exit_confidence=exit_confidence)
    for k, image in enumerate(runner.prepare(x.numpy())):
        logits, path, macs = runner(image[None])
        np.testing.assert_allclose(logits, trace.logits[k : k + 1].numpy(), atol=1e-4)
        assert (path, macs) == (trace.decisions[k].tolist(), int(trace.macs[k]))


NETWORKS = [
    ("convnet-aig", {}),
    ("spnet", {"lookahead": 2}),
    ("skipnet", {}),
    ("blockdrop", {}),
    ("rdi-net", {}),
]
"""A router a block; one for two blocks; a state from block to block; all from the image; three options, told gates."""


@pytest.mark.parametrize(("method", "settings"), NETWORKS)
def test_stages_are_static_and_do_what_the_network_does(method: str, settings: dict[str, Any], tmp_path: Path):
    net = tiny(method, **settings)
    export_stages(net, tmp_path / "net")
    assert not operators(tmp_path / "net") & {"If", "Loop", "Scan", "NonZero", "GatherND", "ScatterND"}
    for file in (tmp_path / "net").glob("*.onnx"):
        graph = onnx.load(file).graph
        dims = [dim for value in (*graph.input, *graph.output) for dim in value.type.tensor_type.shape.dim]
        assert dims and all(dim.dim_value > 0 for dim in dims)
    alike(Stages(tmp_path / "net"), net)


def test_a_file_reaches_from_router_to_router(folder: Path):
    """Three blocks, a router each: what starts, then a block with the router after it, the last with the head."""
    steps = json.loads((folder / "stages.json").read_text())["steps"]
    assert [(step.get("block"), step.get("decides")) for step in steps] == [(None, [0]), (0, [1]), (1, [2]), (2, None)]
    assert [[piece["file"] for piece in step["options"]] for step in steps][:2] == [
        ["000.onnx"],
        ["001-block0-option0.onnx", "001-block0-option1.onnx"],
    ]
    skipped, run = steps[1]["options"]
    assert skipped["outputs"] == ["scores"] and run["outputs"] == ["x", "scores"]  # features stay where they are


def test_a_router_for_several_blocks_is_called_once(tmp_path: Path):
    net = tiny("spnet", "resnet20", lookahead=3)
    export_stages(net, tmp_path / "net")
    steps = json.loads((tmp_path / "net" / "stages.json").read_text())["steps"]
    assert [step["decides"] for step in steps if "decides" in step] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert steps[1]["options"][0] == {"file": None, "inputs": [], "outputs": [], "macs": net.router.macs[0]}  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ["spnet", "static"])
def test_images_leave_at_exits(method: str, tmp_path: Path):
    net = tiny(method) if method == "spnet" else tiny("static", wrapper="spnet")
    x = images(64)
    with torch.no_grad():
        sure = net(x, heads=True).stage_logits[0].softmax(1).amax(1)
    exported = export_stages(net, tmp_path / "net", exit_confidence=float(sure.median()), images=x)
    assert exported.exits == 2 and exported.real == 64
    for confidence in (float(sure.median()), 0.0, 1.0):
        runner = Stages(tmp_path / "net")
        for step in runner.plan["steps"]:
            if "exit" in step:
                step["exit"]["confidence"] = confidence
        alike(runner, net, confidence)


def test_another_threshold_is_another_budget(net: DynamicNetwork, folder: Path):
    runner = Stages(folder)
    for shift, option in ((1e6, 1), (-1e6, 0)):
        runner.plan["decision_shift"] = shift
        assert runner(images(1).numpy())[1] == [option] * 3
    alike(Stages(folder), net)
    kept = net.decision_shift.clone()
    try:
        net.decision_shift.fill_(0.5)
        written = folder.parent / "shifted"
        export_stages(net, written)
        assert Stages(written).plan["decision_shift"] == 0.5
        alike(Stages(written), net)
    finally:
        net.decision_shift.copy_(kept)


def test_a_resnet18_of_torchvision(tmp_path: Path):
    torch.manual_seed(0)
    plain = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2], num_classes=5)
    net = lively(spnet.make_dynamic(plain, "spnet", example=torch.randn(1, 3, 32, 32)))
    exported = spnet.export(net, tmp_path / "net", stages=True)
    assert exported.steps == 9 and exported.error < 1e-4
    alike(Stages(tmp_path / "net"), net, count=4)


def test_stages_run_in_openvino(tmp_path: Path):
    pytest.importorskip("openvino")
    for name in ("spnet", "skipnet"):
        net = tiny(name)
        export_stages(net, tmp_path / name)
        alike(Stages(tmp_path / name, "openvino"), net)


def test_the_runner_needs_no_spnet(net: DynamicNetwork, folder: Path, tmp_path: Path):
    np.save(tmp_path / "images.npy", torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8).numpy())
    bare = "import sys; sys.modules.update(spnet=None, torch=None, onnx=None); import runpy; sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", bare + "runpy.run_path(sys.argv[0], run_name='__main__')"]

    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        words = [*command, str(folder / "run_stages.py"), *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})

    done = run(tmp_path / "images.npy")
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        trace = net(torch.from_numpy(np.load(tmp_path / "images.npy")), heads=False)
    assert done.stdout.splitlines() == [
        f"{k}: digit {int(trace.logits[k].argmax())}  path {''.join(map(str, trace.decisions[k].tolist()))}"
        f"  {int(trace.macs[k]) / 1e6:.2f} MMACs"
        for k in range(3)
    ]
    np.save(tmp_path / "wrong.npy", np.zeros((1, 3, 8, 8), np.float32))
    for arguments in (["wrong.npy"], ["none.npy"], ["images.npy", "tensorrt"], []):
        refused = run(*(tmp_path / name if name.endswith("npy") else name for name in arguments))
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "run_stages:" in refused.stderr
    spoilt = shutil.copytree(folder, tmp_path / "spoilt")
    next(spoilt.glob("001-*.onnx")).unlink()
    refused = subprocess.run(
        [*command, spoilt / "run_stages.py", tmp_path / "images.npy"], capture_output=True, text=True
    )
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "is missing: export" in refused.stderr


def test_a_folder_that_is_not_as_it_was_written_is_named(folder: Path, tmp_path: Path):
    other = tmp_path / "other"
    export_stages(tiny("convnet-aig", hidden=8), other)
    piece = "001-block0-option1.onnx"
    for k, spoil in enumerate(
        (
            lambda place: (place / piece).unlink(),
            lambda place: shutil.copy(other / piece, place / piece),
            lambda place: shutil.copy(other / "stages.json", place / "stages.json"),
            lambda place: (place / piece).write_bytes(b""),
        )
    ):
        place = tmp_path / str(k)
        shutil.copytree(folder, place)
        spoil(place)
        with pytest.raises(ValueError, match=r"is missing|is damaged or of another network") as caught:
            Stages(place)
        assert "\n" not in str(caught.value)
    for content in (None, b"", b"[]", b"{}"):
        place = tmp_path / "plan"
        place.mkdir(exist_ok=True)
        if content is not None:
            (place / "stages.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"no stages\.json as it was written"):
            Stages(place)
    with pytest.raises(ValueError, match="the runtime is onnxruntime or openvino"):
        Stages(folder, "tensorrt")
    assert set(RUNTIMES) == {"onnxruntime", "openvino"}


def test_what_cannot_be_cut_is_said_and_nothing_is_left(net: DynamicNetwork, tmp_path: Path):
    there = tmp_path / "there"
    there.mkdir()
    half = tiny("convnet-aig").to(torch.bfloat16)
    cases: list[tuple[DynamicNetwork, Path, dict[str, Any], str]] = [
        (net, there, {}, "is there already"),
        (net, tmp_path / "new", {"classes": ["a"]}, "1 names for 10 classes"),
        (net, tmp_path / "new", {"images": torch.full((1, 1, 8, 8), torch.nan)}, "NaN"),
        (net, tmp_path / "new", {"exit_confidence": 0.9}, "needs stage heads"),
        (tiny("spnet"), tmp_path / "new", {"exit_confidence": 2.0}, "is a probability"),
        (tiny("static"), tmp_path / "new", {}, "nothing to cut: export it as one static path"),
        (tiny("static", wrapper="spnet"), tmp_path / "new", {}, "nothing to cut: give an exit confidence"),
        (half, tmp_path / "new", {}, "float32"),
    ]
    for network, place, how, words in cases:
        with pytest.raises(UserError, match=words):
            export_stages(network, place, **how)
    assert list(tmp_path.iterdir()) == [there] and not list(there.iterdir())


def test_stages_that_disagree_are_not_kept(net: DynamicNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = lively(create_model("resnet8", "convnet-aig", in_channels=1, image_size=8, seed=9), seed=9)
    monkeypatch.setattr(stages, "cut", lambda _, exits: cut.cut(other, exits=exits))
    with pytest.raises(RuntimeError, match="no folder was written: logits differ"):
        export_stages(net, tmp_path / "deep" / "net")
    assert not list(tmp_path.iterdir())


def test_the_door_and_the_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", str(trained), str(tmp_path / "net"), "--stages", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["folder"] == str(tmp_path / "net") and result["files"] == len(list((tmp_path / "net").glob("*.onnx")))
    alike(Stages(tmp_path / "net"), spnet.load(trained))
    for wrong, words in (
        (["--stages"], "is there already"),
        (["--stages", "--batch-form"], "single images"),
        (["--stages", "--static-path", "all"], "single images"),
        (["--exit-confidence", "0.9"], "is for --stages"),
    ):
        assert main(["export", str(trained), str(tmp_path / "net"), *wrong]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert main(["export", f"{trained}+{trained}", str(tmp_path / "both"), "--stages"]) == 2
    assert "export a member on its own" in capsys.readouterr().err
    for how, words in (({"form": "batch"}, "single images"), ({"stages": False, "exit_confidence": 0.9}, "for stages")):
        with pytest.raises(UserError, match=words):
            spnet.export(trained, tmp_path / "other", **{"stages": True, **how})  # type: ignore[call-overload]
    with pytest.raises(UserError, match="are of one network"):
        spnet.export(Cascade([tiny("static"), tiny("spnet")]), tmp_path / "other", stages=True)  # type: ignore[arg-type]
    assert [place.name for place in tmp_path.iterdir()] == ["net"]
