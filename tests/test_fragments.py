"""Any module as ONNX nodes: networks, blocks and routers of strangers through the onnx executor, no emitter written."""

import logging
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from onnx import TensorProto, helper
from test_contract import bottlenecks, dynamic, transformer
from tiny import lively
from torch import Tensor, nn
from toy_networks import ToyBlock, toy_backbone

from spnet import DynamicNetwork, Engine, UserError, create_model, make_dynamic
from spnet.inference.export import export_onnx
from spnet.inference.runtimes.onnx import exporter
from spnet.inference.runtimes.onnx import fragment as fragments
from spnet.inference.runtimes.onnx.agreement import disagreement, own_decisions_disagreement, probe
from spnet.inference.runtimes.onnx.direct import direct
from spnet.inference.runtimes.onnx.executor import OnnxExecutor
from spnet.inference.runtimes.onnx.graph import IR_VERSION, OPSET, Graph
from spnet.inference.runtimes.onnx.library import open_session
from spnet.inference.runtimes.onnx.network import check_form, path_model
from spnet.inference.runtimes.onnx.passes import splice
from spnet.inference.runtimes.onnx.structure import Part, at_test, record
from spnet.routers import PooledMLP, Router, State
from spnet.routers.base import gated_blocks


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


class ConvolutionalMemory(Router):
    """A kind of router that the library does not know: a convolution over the features, and a running mean of what it
    saw and of what was decided, carried from block to block."""

    def __init__(self, widths: tuple[int, ...], gated: list[bool]) -> None:
        super().__init__()
        self.gated = tuple(gated)
        self.macs = (0,) * len(gated)
        self.look = nn.ModuleDict({str(i): nn.Conv2d(widths[i], 4, 3, padding=1) for i in gated_blocks(gated)})
        self.norm = nn.GroupNorm(2, 4)
        self.read = nn.Linear(6, 2)

    def begin(self, image: Tensor) -> State:
        return (image.new_zeros(image.shape[0], 4), image.new_ones(image.shape[0], 2))

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        seen, decided = state
        seen = 0.5 * seen + self.norm(self.look[str(i)](x)).amax((2, 3))
        return self.read(torch.cat([seen, decided], 1)).tanh(), (seen, decided)

    def told(self, state: State, i: int, gate_BK: Tensor) -> State:
        return state[0], 0.5 * state[1] + gate_BK


def resnet18() -> DynamicNetwork:
    torch.manual_seed(0)
    original = torchvision.models.resnet18(num_classes=7)
    return lively(make_dynamic(original, "dynamic", example=torch.zeros(1, 3, 64, 64), hidden=4))


def toys() -> DynamicNetwork:
    torch.manual_seed(0)
    backbone = toy_backbone(5)
    return lively(DynamicNetwork(backbone, PooledMLP([3] * 5, [2] * 5, [True] * 5, hidden=4, lookahead=2)))


def remembering() -> DynamicNetwork:
    """Routers of a new kind, with a state, and a block that none of them decides."""
    torch.manual_seed(0)
    backbone = toy_backbone(4)
    return lively(DynamicNetwork(backbone, ConvolutionalMemory((3,) * 4, [True, False, True, True])))


STRANGERS: dict[str, Callable[[], DynamicNetwork]] = {
    "bottlenecks": lambda: dynamic(bottlenecks),
    "transformer": lambda: dynamic(transformer),
    "torchvision": resnet18,
    "toys": toys,
    "a new router": remembering,
}


@cache
def stranger(name: str) -> DynamicNetwork:
    return STRANGERS[name]()


@pytest.mark.parametrize(
    ("name", "layout"), [*((name, "blocked") for name in STRANGERS), ("bottlenecks", "plain"), ("transformer", "plain")]
)
def test_networks_of_strangers_agree(name: str, layout: str):
    """All run, all skip, random paths and own decisions; one image and many."""
    run = OnnxExecutor(stranger(name), layout=layout)
    images, decisions = probe(run.net, paths=7)
    assert disagreement(run.net, images, decisions, run.arrays) is None
    assert own_decisions_disagreement(run.net, images, run.arrays)[0] is None
    for k in range(3):
        assert disagreement(run.net, images[k : k + 1], decisions[k : k + 1], run.arrays) is None
        assert own_decisions_disagreement(run.net, images[k : k + 1], run.arrays)[0] is None


@pytest.mark.parametrize("name", ["transformer", "a new router"])
def test_networks_of_strangers_leave_early_and_are_exported(name: str, tmp_path: Path):
    net = stranger(name)
    assert export_onnx(net, tmp_path / "net.onnx", form="batch").error < 1e-4
    assert Engine(net).choice(1) == "onnx"
    if net.stage_heads is not None:
        images = probe(net, paths=9)[0]
        with torch.no_grad():
            confidence = float(net(images).stage_logits[0].softmax(1).amax(1).median()) + 1e-3
            expected = net(images, heads=False, exit_confidence=confidence)
        found = OnnxExecutor(net, exit_confidence=confidence)(images)
        assert found.exit_stage.tolist() == expected.exit_stage.tolist()
        assert 0 < int((found.exit_stage == 0).sum()) < len(images)


def test_all_gates_open_is_the_original():
    torch.manual_seed(0)
    net, original = stranger("torchvision"), torchvision.models.resnet18(num_classes=7)
    original.load_state_dict(net.backbone.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = original.eval()(x)
    found = OnnxExecutor(net)(x, torch.ones(8, dtype=torch.int64)).logits
    assert float((found - expected).abs().max() / expected.abs().max()) < 2e-6


# What cannot be exported


class Alone(nn.Module):
    """Its work depends on values in a way that no graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x + float(x.sum()) if x.sum() > 1e9 else x * len(x.sum((1, 2, 3)).tolist())


@pytest.mark.parametrize("kind", ["stem", "block", "router"])
def test_a_part_that_torch_cannot_export_is_named_in_one_line(kind: str):
    net = toys()
    if kind == "stem":
        net.backbone.stem = Alone()
        wanted = r"the stem \(Alone\)"
    elif kind == "block":
        net.blocks[2].conv = nn.Sequential(nn.Conv2d(3, 3, 1), Alone())  # type: ignore[attr-defined]
        wanted = r"option 1 of block 2 \(ToyBlock\)"
    else:
        net.router.mlps["2"].norm = Fixed()  # type: ignore[union-attr,operator]
        wanted = "router PooledMLP at block 2 .*x.shape"
    with pytest.raises(UserError, match=wanted) as refused:
        check_form(net)
    assert "\n" not in str(refused.value)
    assert Engine(net).choice(2) == "gathered"


class Fixed(nn.Module):
    """Right for every batch, but it tells torch.export that there is one size only."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(len(x), 1).erfinv().nan_to_num(0, 0, 0)


def test_an_export_leaves_warnings_logging_and_modes_as_they_were():
    net = remembering().train()
    net.blocks[1].conv.eval()  # type: ignore[attr-defined]
    modes = [module.training for module in net.modules()]
    filters, level = list(warnings.filters), logging.root.manager.disable
    check_form(net)
    assert (list(warnings.filters), logging.root.manager.disable) == (filters, level)
    assert [module.training for module in net.modules()] == modes


# One export per structure, kept on disk


class Curved(ToyBlock):
    """A block whose operator only torch's exporter knows."""

    def run(self, x: Tensor, option: int) -> Tensor:
        return x + torch.erf(self.conv(x)) if option else x


def curved(blocks: int) -> DynamicNetwork:
    backbone = toy_backbone(blocks, kind=Curved)
    return lively(DynamicNetwork(backbone, PooledMLP([3] * blocks, [2] * blocks, [True] * blocks, hidden=4)))


def test_sisters_share_one_export_and_later_processes_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SPNET_CACHE", str(tmp_path))
    exported: list[int] = []
    real = exporter._torch_onnx
    monkeypatch.setattr(exporter, "_torch_onnx", lambda parts: (exported.append(len(parts)), real(parts))[1])
    monkeypatch.setattr(fragments, "_known", {})
    net = curved(6)
    x = probe(net, paths=3)[0]
    expected = OnnxExecutor(net)(x).logits
    assert exported == [1]  # six blocks, one structure; everything else is written at once
    monkeypatch.setattr(fragments, "_known", {})  # another process
    assert torch.equal(OnnxExecutor(net)(x).logits, expected) and exported == [1]
    (file,) = (tmp_path / "fragments").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    monkeypatch.setattr(fragments, "_known", {})
    assert torch.equal(OnnxExecutor(net)(x).logits, expected) and exported == [1, 1]


# Written at once, and by torch's exporter: one result


class Everything(nn.Module):
    """Every operator that is written at once, also in place and with unusual settings."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1, bias=False), nn.BatchNorm2d(8))
        self.second = nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=4, dilation=(1, 1))
        self.pools = nn.ModuleList([nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 1, 1)])
        self.last_pool = nn.AvgPool2d(2, ceil_mode=True)
        self.linear, self.mixed = nn.Linear(8, 6), nn.Linear(6, 4, bias=False)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.first(image).relu_()
        x = x + nn.functional.hardswish(self.second(x)) * nn.functional.silu(x)
        x = nn.functional.relu6(x).sigmoid() / 3
        big = self.pools[2](x)
        small = self.last_pool(self.pools[1](self.pools[0](big)))
        shifted = nn.functional.pad(x[:, 2:, ::2, 1::2], (1, 0, 0, 0, 0, 2))
        h = self.norm(self.linear(x.mean((2, 3)))).tanh()
        left, right = self.mixed(h).split([1, 3], dim=1)
        a, b, c = right.chunk(3, 1)
        summed = nn.functional.adaptive_avg_pool2d(small, 1).flatten(1) + x.sum((2, 3)) / 49
        zeros = image.new_zeros(image.shape[0], 2)
        return (
            big,
            small,
            shifted,
            left,
            nn.functional.pad(b, (1, 0)) * a + c,
            summed,
            zeros,
            nn.functional.hardsigmoid(h),
        )


def result(part: Part, made: fragments.Fragment, x: Tensor) -> list[np.ndarray]:
    g = Graph()
    names = splice(g, part, made, ["image"])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *x.shape[1:]])]
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(g.finish("part", inputs, outputs), opset_imports=opset, ir_version=IR_VERSION)
    return open_session(model.SerializeToString()).run(names, {"image": x.numpy()})


def test_both_ways_to_a_fragment_compute_the_same():
    torch.manual_seed(0)
    module = lively(Everything())  # type: ignore[arg-type]
    with at_test(module):
        part = record(module, torch.zeros(2, 3, 13, 14))
        at_once = direct(part)
        assert at_once is not None, sorted({call.operator for call in part.calls})
        exported = exporter.export([part])[0]
        for count in (1, 2, 5):
            x = torch.randn(count, 3, 13, 14)
            ours, torchs = (result(part, fragments._parse(graph), x) for graph in (at_once, exported))
            for mine, theirs, expected in zip(ours, torchs, module(x), strict=True):
                np.testing.assert_allclose(mine, expected.numpy(), atol=1e-5)
                np.testing.assert_allclose(theirs, expected.numpy(), atol=1e-5)


def test_what_changes_in_place_under_a_view_is_left_to_torch():
    class Viewed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            front = y[:, :1]
            y.relu_()
            return front + 1.0

    with at_test(module := Viewed()):
        assert direct(record(module, torch.randn(2, 3))) is None


def test_a_path_through_a_strangers_network_holds_what_lies_on_it():
    net = stranger("torchvision")
    full, least = path_model(net).ByteSize(), path_model(net, [0] * 8).ByteSize()
    assert least < 0.05 * full


def test_a_network_of_the_library_needs_no_exporter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fragments, "_known", {})
    monkeypatch.setattr(fragments, "export", None)
    for method in ("spnet", "skipnet", "blockdrop", "codinet", "rdi-net"):
        check_form(create_model("resnet8", method, image_size=8))
