"""Networks in 8 bits: the graph is the quantised static network cut up, skips cost no accuracy of their own, and what
is wrong is said in one line."""

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tiny import images, lively, paths
from torch import Tensor, nn

import spnet
from spnet import Cascade, Engine, Run, UserError, create_model
from spnet.cli import main
from spnet.data import Dataset
from spnet.inference.cascade import sureness
from spnet.inference.export import export_onnx, open_export
from spnet.inference.runtimes.onnx.int8 import Quantisation
from spnet.inference.runtimes.onnx.library import open_session
from spnet.inference.runtimes.onnx.network import dynamic_model, path_model
from spnet.inference.runtimes.onnx.parts import take_apart as apart
from spnet.inference.runtimes.onnx.quantise import needs_seven_bits, quantised
from spnet.network.dynamic import DynamicNetwork

COUNT = 12
PIXELS = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net() -> DynamicNetwork:
    return lively(create_model("resnet14", "dynamic", in_channels=1, image_size=8, hidden=4, lookahead=2, seed=0))


@pytest.fixture(scope="module")
def small() -> DynamicNetwork:
    return lively(create_model("resnet8", "static", in_channels=1, image_size=8, seed=0))


class Wave(nn.Module):
    """What onnxruntime's tools leave in fp32."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


@pytest.fixture(scope="module")
def odd() -> DynamicNetwork:
    """Its last features come out of a sine."""
    found = lively(create_model("resnet8", "dynamic", in_channels=1, image_size=8, hidden=4, seed=0))
    found.backbone.neck = Wave()
    return found


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
    engine = Engine(net, "onnx", precision="int8", calibration=PIXELS)
    cost = engine.calibrate(PIXELS, 0.7)
    assert cost == pytest.approx(engine(PIXELS).macs.double().mean().item() / net.static_macs)
    assert copy.deepcopy(engine)(PIXELS).logits.equal(engine(PIXELS).logits)


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
    export_onnx(net, tmp_path / "net.onnx", int8=replace(int8, bits=8))
    monkeypatch.setattr("spnet.inference.runtimes.onnx.quantise.needs_seven_bits", lambda: True)
    with pytest.raises(
        UserError, match=r"net\.onnx has int8 weights .* overflow on this processor: export the run here"
    ):
        open_export(tmp_path / "net.onnx")


def test_so_is_an_engine_that_was_made_where_they_do_not(net: DynamicNetwork, monkeypatch: pytest.MonkeyPatch):
    for module in ("int8", "quantise"):
        monkeypatch.setattr(f"spnet.inference.runtimes.onnx.{module}.needs_seven_bits", lambda: False)
    sent = pickle.dumps(Engine(net, "onnx", precision="int8", calibration=PIXELS))
    assert pickle.loads(sent)(PIXELS).logits.isfinite().all()
    monkeypatch.setattr("spnet.inference.runtimes.onnx.quantise.needs_seven_bits", lambda: True)
    with pytest.raises(UserError, match="overflow on this processor: make it here") as caught:
        pickle.loads(sent)(PIXELS)
    assert "\n" not in str(caught.value)


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


def test_what_has_no_form_in_8_bits_is_named(net: DynamicNetwork, odd: DynamicNetwork):
    """A network alone, and which member of a cascade."""
    for model, words in (
        (odd, "^int8 needs blocks that end in"),
        (Cascade([net, odd]), "^member 2 of the cascade: int8"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            Engine(model, "onnx", precision="int8", calibration=images(4))
        assert "\n" not in str(caught.value) and "run this network in fp32" in str(caught.value)


def test_a_cascade_in_8_bits_is_its_members_in_8_bits(small: DynamicNetwork, net: DynamicNetwork):
    x = images(40)
    first, last = (Engine(member, "onnx", precision="int8", calibration=images(64)) for member in (small, net))
    alone = first(x)
    confidence = float(np.median(sureness(alone.logits)))
    stay = torch.from_numpy(sureness(alone.logits) > confidence)
    engine = Engine(Cascade([small, net], confidence), "onnx", precision="int8", calibration=images(64))
    trace = engine(x)
    assert stay.sum() == len(x) / 2 and engine.precision == "int8"
    assert trace.exit_stage.tolist() == [0 if sure else 1 for sure in stay.tolist()]
    torch.testing.assert_close(trace.logits[stay], alone.logits[stay])
    torch.testing.assert_close(trace.logits[~stay], last(x[~stay]).logits, atol=1e-5, rtol=0)
    exact = Engine(Cascade([small, net], confidence), "onnx")(x)
    assert not torch.allclose(trace.logits, exact.logits, atol=1e-4)
    torch.testing.assert_close(copy.deepcopy(engine)(x).logits, trace.logits)


def test_a_cascade_in_8_bits_meets_a_budget_by_what_it_decides_in_8_bits(small: DynamicNetwork, net: DynamicNetwork):
    engine = Engine(Cascade([small, net]), "onnx", precision="int8", calibration=PIXELS)
    cost = engine.calibrate(PIXELS, 0.8)
    assert cost == pytest.approx(0.8, abs=0.05)
    assert cost == pytest.approx(engine(PIXELS).macs.double().mean().item() / net.static_macs)


def test_bad_input_for_a_cascade_is_one_line(small: DynamicNetwork, net: DynamicNetwork):
    other = copy.deepcopy(net)
    other.mean.fill_(0.3)
    cases: list[tuple[Cascade, str, Any, str]] = [
        (Cascade([small, net]), "onnx", None, "^int8 takes its scales from training images"),
        (Cascade([small, net]), "onnx", images(4) * float("nan"), "^the images hold NaN"),
        (Cascade([small, net]), "auto", images(4), "^int8 is never chosen by 'auto'"),
        (Cascade([small, net]), "gathered", images(4), "int8 needs executor 'onnx'"),
        (Cascade([small, other]), "onnx", images(4), "in different ways"),
    ]
    for cascade, executor, calibration, words in cases:
        with pytest.raises(UserError, match=words) as caught:
            Engine(cascade, executor, precision="int8", calibration=calibration)
        assert "\n" not in str(caught.value)
    assert Engine(Cascade([small, other]), "onnx", precision="int8", calibration=PIXELS)(PIXELS).logits.isfinite().all()


def test_a_network_is_taken_apart_once(net: DynamicNetwork, monkeypatch: pytest.MonkeyPatch):
    """Whatever graphs are made of it; another network, and a copy, is another matter."""
    taken = []
    monkeypatch.setattr(
        "spnet.inference.runtimes.onnx.int8.take_apart", lambda *a, **k: taken.append(1) or apart(*a, **k)
    )
    found = Quantisation.of(net, images(8))
    graphs = [dynamic_model(net, form, int8=found) for form in ("single", "batch")] + [path_model(net, int8=found)]
    assert len(taken) == 1 and len(graphs) == 3
    other = copy.deepcopy(found)
    assert other == found and path_model(net, int8=other) == graphs[-1] and len(taken) == 2


def test_export_and_engine_calibrate_on_the_same_images(trained: Path, tmp_path: Path):
    """Of more images than are needed, the same ones set the scales."""
    run = Run(trained)
    data = run.data(None)
    exported = spnet.export(run, tmp_path / "net.onnx", int8=True)
    engine = Engine(run.network(), "onnx", precision="int8", calibration=data.train.images)
    assert exported.int8 is not None and exported.int8.calibrated_on == 256 < len(data.train)
    logits, decisions = open_export(tmp_path / "net.onnx")(data.test.images[:20].numpy())
    trace = engine(data.test.images[:20])
    np.testing.assert_allclose(logits, trace.logits.numpy(), atol=1e-5)
    assert decisions.tolist() == trace.decisions.tolist()


def test_the_door_says_what_is_missing(net: DynamicNetwork, digits: Dataset, tmp_path: Path):
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "does not know its data"),
        ({"data": digits.test}, "calibrated on training and judged on test images"),
        ({"data": digits, "stages": True}, "choose one of them"),
    ]
    for how, words in cases:
        with pytest.raises(UserError, match=words) as caught:
            spnet.export(net, tmp_path / "net.onnx", int8=True, **how)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


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
