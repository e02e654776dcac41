"""A cascade as files: the whole, its members, the recipe; and what runs them without spnet."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from test_cascade import LARGE, MIDDLE, SMALL, network, same
from test_cascade_cli import answer, pair, refusal  # noqa: F401
from tiny import images

from spnet import Cascade, UserError
from spnet.inference.export import export_cascade, open_export
from spnet.inference.runtimes.onnx.library import open_session

EXAMPLE = Path(__file__).parent.parent / "examples" / "deploy_cascade.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    cascade = Cascade([SMALL, MIDDLE, LARGE], (0.7, 0.6))
    exported = export_cascade(cascade, folder / "net.onnx", names=("a", "b", "c"), images=images(8))
    assert exported.images == 40 and exported.error < 1e-4 and len(exported.members) == 3
    return folder


def test_the_whole_is_one_portable_graph_that_answers_as_the_cascade(folder: Path):
    model = onnx.load(folder / "net.onnx")
    assert {entry.domain for entry in model.opset_import} == {""}
    session = open_session((folder / "net.onnx").read_bytes())
    cascade, x = Cascade([SMALL, MIDDLE, LARGE], (0.7, 0.6)), images(30, seed=5)
    for confidences in ((0.7, 0.6), (0, 0), (1, 0.0), (1, 1)):
        cascade.confidences = confidences
        trace = cascade(x)
        feeds = {} if confidences == (0.7, 0.6) else {"confidences": np.array(confidences, np.float64)}
        rows = [session.run(None, {"image": image.numpy(), **feeds}) for image in x.split(1)]
        logits, decisions, stage = (torch.from_numpy(np.concatenate(column)) for column in zip(*rows, strict=True))
        assert torch.equal(stage[:, 0], trace.exit_stage) and torch.equal(decisions, trace.decisions)
        same(logits, trace.logits)


def test_members_are_files_of_their_own_and_the_recipe_names_them(folder: Path):
    recipe = json.loads((folder / "net.json").read_text())
    assert recipe["members"] == ["net-1.onnx", "net-2.onnx", "net-3.onnx"] and recipe["names"] == ["a", "b", "c"]
    assert recipe["confidences"] == [0.7, 0.6] and recipe["whole"] == "net.onnx"
    for name, member in zip(recipe["members"], (SMALL, MIDDLE, LARGE), strict=True):
        with torch.no_grad():
            same(torch.from_numpy(open_export(folder / name)(images(3).numpy())[0]), member(images(3)).logits)
    with pytest.raises(UserError, match=r"is a whole cascade: open its members"):
        open_export(folder / "net.onnx")


def test_members_for_batches_have_no_whole(tmp_path: Path):
    exported = export_cascade(Cascade([SMALL, LARGE]), tmp_path / "net.onnx", form="batch")
    assert exported.whole is None and sorted(path.name for path in tmp_path.iterdir()) == [
        "net-1.onnx", "net-2.onnx", "net.json",
    ]  # fmt: skip


def test_nothing_is_left_of_a_cascade_that_cannot_be_exported(tmp_path: Path):
    other = network(seed=5)
    other.mean.fill_(0.3)
    broken = network(seed=6)
    broken.backbone.head.get_parameter("weight").data.fill_(float("nan"))
    for members, name, says in (
        ([SMALL, other], "net.onnx", "in different ways"),
        ([SMALL, LARGE], "net", "name it with the ending .onnx"),
        ([SMALL, broken], "net.onnx", "not finite numbers"),
    ):
        with pytest.raises(UserError, match=says):
            export_cascade(Cascade(members), tmp_path / name)
        assert not list(tmp_path.iterdir())


def test_export_of_a_pair_and_the_example_that_runs_it(pair: str, tmp_path: Path, capsys, monkeypatch):  # noqa: F811
    result = answer(capsys, "export", pair, tmp_path / "net.onnx", "--budget", 0.8)
    assert result["whole"] == str(tmp_path / "net.onnx") and result["images"] == 32 + 64
    assert 0 < result["confidences"][0] < 1 and result["members"][0]["real"] == 64
    picture = tmp_path / "grey.png"
    Image.new("L", (8, 8), 99).save(picture)
    asked = ("--exit-confidence", result["confidences"][0])
    expected = answer(capsys, "predict", pair, picture, *asked)["predictions"][0]
    monkeypatch.setattr(sys, "argv", ["deploy_cascade.py", str(tmp_path / "net.json"), str(picture)])
    runpy.run_path(str(EXAMPLE))
    told = capsys.readouterr().out
    assert told.startswith(f"{picture}: {expected['class']}  (") and f"by member {1 + expected['exit_stage']}" in told
    assert "--static-path is of one network" in refusal(
        capsys, "export", pair, tmp_path / "x.onnx", "--static-path", "all"
    )
    assert "ending .onnx" in refusal(capsys, "export", pair, tmp_path / "x")
