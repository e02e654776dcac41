"""Networks in 8 bits: the graph is the quantised static network cut up, skips cost no accuracy of their own, and what
is wrong is said in one line."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tiny import images, lively, paths

from spnet import Cascade, Engine, UserError, create_model
from spnet.cli import main
from spnet.inference.export import export_onnx, open_export
from spnet.inference.runtimes.onnx.int8 import Quantisation
from spnet.inference.runtimes.onnx.library import open_session
from spnet.inference.runtimes.onnx.network import dynamic_model, path_model
from spnet.inference.runtimes.onnx.quantise import needs_seven_bits, quantised
from spnet.network.dynamic import DynamicNetwork

COUNT = 12


@pytest.fixture(scope="module")
def net() -> DynamicNetwork:
    return lively(create_model("resnet14", "dynamic", in_channels=1, image_size=8, hidden=4, lookahead=2, seed=0))


@pytest.fixture(scope="module")
def int8(net: DynamicNetwork) -> Quantisation:
    return Quantisation.of(net, images(64).numpy())


@pytest.fixture(scope="module")
def engine(net: DynamicNetwork) -> Engine:
    return Engine(net, "onnx", precision="int8", calibration=images(64))


def _ran(model: onnx.ModelProto | bytes, x: np.ndarray) -> np.ndarray:
    return open_session(model if isinstance(model, bytes) else model.SerializeToString()).run(None, {"image": x})[0]


def test_every_block_in_full_is_the_quantised_static_network(net: DynamicNetwork, int8: Quantisation, engine: Engine):
    x, full = images(COUNT), torch.tensor(net.options) - 1
    static = _ran(int8.static(), x.numpy())
    exact = net.forward_path(x, full).logits.detach().numpy()
    assert 1e-3 < np.abs(static - exact).max() / np.abs(exact).max() < 0.1
    for single in (True, False):
        parts = x.split(1) if single else [x]
        found = np.concatenate([engine(part, force=full).logits.numpy() for part in parts])
        np.testing.assert_allclose(found, static, atol=1e-5)


def test_a_path_costs_what_it_costs_in_8_bits_and_no_more(net: DynamicNetwork, int8: Quantisation, engine: Engine):
    """Skips hand bytes on as they are: any path is as far from fp32 as the full one, and equal to its own graph."""
    x = images(COUNT)
    for path in (net.cheapest_path, *paths(net, 2)):
        exact = net.forward_path(x, path).logits.detach().numpy()
        found = engine(x, force=path)
        assert found.decisions.tolist() == [path.tolist()] * COUNT
        assert np.abs(found.logits.numpy() - exact).max() / np.abs(exact).max() < 0.1
        np.testing.assert_allclose(
            found.logits.numpy(), _ran(path_model(net, path.tolist(), int8=int8), x.numpy()), atol=1e-5
        )


def test_both_sides_of_every_branch_share_a_scale(net: DynamicNetwork, int8: Quantisation):
    """In the graph of a single image: what reads the bytes behind an `If` and what wrote them agree."""
    graph = dynamic_model(net, "single", int8=int8).graph
    branches = [node for node in graph.node if node.op_type == "If"]
    assert len(branches) == len(net.blocks)
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    readers = {
        n.input[0]: values[n.input[1]].item()
        for n in graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] not in values
    }
    read = 0
    for node in branches:
        written = set()
        for branch in (a.g for a in node.attribute):
            inside = {t.name: onnx.numpy_helper.to_array(t) for t in branch.initializer}
            (last,) = (n for n in branch.node if n.output[0] == branch.output[0].name)
            if last.op_type == "QuantizeLinear":
                written.add(inside[last.input[1]].item())
            else:  # skipped: the bytes before the block, whose scale is that of the block before
                assert last.op_type == "Identity" and last.input[0] not in inside
        assert len(written) == 1
        if node.output[0] in readers:
            read += 1
            assert written == {readers[node.output[0]]}
    assert read > 1


@torch.no_grad()
def test_own_decisions_early_exits_and_bounds():
    net = lively(create_model("resnet8", "spnet", in_channels=1, image_size=8, seed=0))
    x = images(COUNT)
    confidence = float(net(x).stage_logits[0].softmax(1).amax(1).median())
    rules: list[dict[str, Any]] = [{"exit_confidence": confidence}, {"max_cost": 0.8}]
    for rule in rules:
        engine = Engine(net, "onnx", precision="int8", calibration=images(64), **rule)
        exact = Engine(net, "onnx", **rule)(x)
        whole, single = engine(x), [engine(part) for part in x.split(1)]
        assert torch.equal(whole.decisions, torch.cat([trace.decisions for trace in single]))
        torch.testing.assert_close(whole.logits, torch.cat([trace.logits for trace in single]), atol=1e-5, rtol=0)
        same = (whole.decisions == exact.decisions).all(1) & (whole.exit_stage == exact.exit_stage)
        assert same.double().mean() > 0.6
        error = (whole.logits - exact.logits)[same].abs().max() / exact.logits.abs().max()
        assert 0 < error < 0.1 and engine.precision == "int8"


def test_it_is_calibrated_to_a_budget_by_its_own_decisions(net: DynamicNetwork):
    pixels = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    engine = Engine(net, "onnx", precision="int8", calibration=pixels)
    cost = engine.calibrate(pixels, 0.7)
    assert cost == pytest.approx(engine(pixels).macs.double().mean().item() / net.static_macs)
    assert copy.deepcopy(engine)(pixels).logits.equal(engine(pixels).logits)


@pytest.mark.parametrize("bits", [True, False])
def test_weights_have_the_bits_that_the_processor_takes(
    net: DynamicNetwork, bits: bool, monkeypatch: pytest.MonkeyPatch
):
    model = quantised(path_model(net), images(8).numpy(), seven_bits=bits)
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    largest = max(int(np.abs(w.astype(int)).max()) for w in weights)
    assert largest in ((63, 64) if bits else (127,))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not needs_seven_bits()
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, "avx512_vnni": not bits}, raising=False)
    assert needs_seven_bits() is bits


@pytest.mark.parametrize("form", ["single", "batch", "path"])
def test_a_file_does_what_the_engine_does(
    form: str, net: DynamicNetwork, int8: Quantisation, engine: Engine, tmp_path: Path
):
    exported = export_onnx(net, tmp_path / "net.onnx", form=form, images=images(COUNT), int8=int8)
    assert exported.real == COUNT and exported.error < 1e-4
    file = open_export(tmp_path / "net.onnx")
    logits, decisions = file(images(COUNT).numpy())
    trace = engine(images(COUNT), force=torch.tensor(net.options) - 1 if form == "path" else None)
    np.testing.assert_allclose(logits, trace.logits.numpy(), atol=1e-5)
    assert decisions.tolist() == trace.decisions.tolist()
    assert file.facts["int8"] == str(int8.bits)
    assert (tmp_path / "net.onnx").stat().st_size < 0.5 * export_onnx(net, tmp_path / "fp32.onnx", form=form).bytes


def test_a_graph_that_disagrees_is_not_kept(
    net: DynamicNetwork, int8: Quantisation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    static = onnx.load_from_string(int8.static())
    weight = max(static.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = weight.raw_data[::-1]
    monkeypatch.setattr(Quantisation, "static", lambda self: static.SerializeToString())
    with pytest.raises(RuntimeError, match="quantised static network's"):
        export_onnx(net, tmp_path / "net.onnx", int8=int8)
    assert not (tmp_path / "net.onnx").exists()


def test_a_file_of_8_bits_is_refused_where_they_overflow(
    net: DynamicNetwork, int8: Quantisation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    export_onnx(net, tmp_path / "net.onnx", int8=Quantisation(int8.sheet, 8))
    monkeypatch.setattr("spnet.inference.export.reader.needs_seven_bits", lambda: True)
    with pytest.raises(UserError, match="overflow on this processor"):
        open_export(tmp_path / "net.onnx")


def test_bad_input_is_one_line(net: DynamicNetwork):
    broken = images(4)
    broken[2, 0, 0, 0] = float("nan")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"precision": "int8"}, "int8 takes its scales from training images"),
        ({"precision": "int8", "calibration": broken}, "NaN"),
        ({"precision": "int8", "calibration": images(0)}, "no images"),
        ({"precision": "int8", "calibration": images(4, (3, 8, 8))}, "8"),
        ({"precision": "int4"}, "unknown precision 'int4'"),
        ({"calibration": images(4)}, "add precision='int8'"),
    ]
    for how, words in cases:
        with pytest.raises(UserError, match=words) as caught:
            Engine(net, "onnx", **how)
        assert "\n" not in str(caught.value)
    for executor, words in (("auto", "never chosen by 'auto'"), ("gathered", "executor 'onnx'")):
        with pytest.raises(UserError, match=words):
            Engine(net, executor, precision="int8", calibration=images(4))
    with pytest.raises(UserError, match="calibration images hold NaN"):
        Quantisation.of(net, broken.numpy())
    with pytest.raises(UserError, match="at least one"):
        Quantisation.of(net, broken.numpy()[:0])
    small = create_model("resnet8", "static", in_channels=1, image_size=8, seed=0)
    with pytest.raises(UserError, match="for one network"):
        Engine(Cascade([small, net], 0.5), "onnx", precision="int8", calibration=images(4))


def test_the_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", str(trained), str(tmp_path / "net.onnx"), "--int8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["int8"]
    assert told["calibrated_on"] == 256 and told["tested_on"] > 40 and told["speed_up"] > 0
    assert abs(told["accuracy"] - told["accuracy_fp32"]) < 5
    assert main(["export", str(trained), str(tmp_path / "path.onnx"), "--int8", "--static-path", "all"]) == 0
    printed = capsys.readouterr().out
    assert "verified against the quantised static network" in printed and "test images right, fp32 " in printed
    assert main(["export", str(trained), str(tmp_path / "x.onnx"), "--int8", "--data", "folder:nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "x.onnx").exists()
