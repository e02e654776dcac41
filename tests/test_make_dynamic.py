"""Bringing a network: what is refused in one line, what may be chosen, modules that are really called."""

import math
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from tiny import agreeing, empty_path, full_path, images
from torch import Tensor, nn

import spnet
from spnet import UserError, make_dynamic
from spnet.cli import main
from spnet.network.block import PlainBlock, ResidualBlock
from spnet.network.take_state import take_state
from spnet.routers import PooledMLP

X = images(2, (3, 32, 32))


def resnet18(**settings) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10, **settings).eval()


class Stranger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


class Twice(torchvision.models.ResNet):
    """layer1.1 runs twice."""

    def __init__(self) -> None:
        super().__init__(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2])

    def forward(self, x: Tensor) -> Tensor:
        self.layer1[1](torch.zeros(1, 64, 8, 8))
        return super().forward(x)


class Backwards(Twice):
    """layer2's first block runs before layer1."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2[0](self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)).repeat(1, 4))


class Different(Twice):
    """Does something no adapter knows of."""

    def forward(self, x: Tensor) -> Tensor:
        return torchvision.models.ResNet.forward(self, x) * 2


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: torchvision.models.vgg16(num_classes=2), ("VGG", "register_adapter", "Conv2d x13")),
        (lambda: torchvision.models.densenet121(num_classes=2), ("DenseNet", "register_adapter", "BatchNorm2d x121")),
        (Stranger, ("Stranger", "register_adapter", "Conv2d x1")),
        (Twice, ("layer1.1", "more than once")),
        (Backwards, ("order", "layer1.0")),
        (Different, ("differ", "register_adapter")),
    ],
)
def test_networks_that_are_refused(model, words):
    with pytest.raises(spnet.UserError) as caught:
        spnet.make_dynamic(model(), example=X)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"example": torch.zeros(3, 32, 32)}, ("(3, 32, 32)", "(B, C, H, W)")),
        ({"example": torch.zeros(1, 1, 32, 32)}, ("does not take", "(1, 1, 32, 32)")),
        ({"example": torch.zeros(1, 3, 32, 32, dtype=torch.uint8)}, ("normalised",)),
        ({"example": torch.zeros(1, 3, 32, 32, device="meta")}, ("meta",)),
        ({"num_classes": "a"}, ("num_classes", "'a'")),
        ({"num_classes": 0}, ("num_classes", "0")),
        ({"blocks": "layer9"}, ("blocks 'layer9'", "matches no block", "layer1.0")),
        ({"ignore": ("layer1.0", "*.nope")}, ("ignore '*.nope'", "matches no block")),
        ({"exits": "layer9"}, ("exits", "layer9", "layer1, layer2, layer3")),
        ({"method": "dynamic", "exits": "layer2"}, ("no stage heads",)),
        ({"method": "rdi-net"}, ("2 options", "options=2")),
        ({"taget": 0.5}, ("Did you mean 'target'?",)),
    ],
    ids=str,
)
def test_arguments_that_are_refused(settings, words):
    with pytest.raises(spnet.UserError) as caught:
        spnet.make_dynamic(resnet18(), **{"example": X, **settings})
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_what_may_be_skipped_and_where_it_may_leave():
    net = spnet.make_dynamic(resnet18(), example=X, blocks=("layer2", "layer4.*"), ignore="*.0", exits="layer3")
    assert net.gated == (False, False, False, True, False, False, False, True)
    trace = net(X, exit_confidence=0.0)
    assert trace.exit_stage.tolist() == [2, 2] and len(trace.stage_logits) == 2
    assert net.stage_heads is not None and net.stage_heads.macs == (0, 0, 256 * 10)


@pytest.mark.parametrize("method", ["blockdrop", "codinet", "convnet-aig", "dynamic", "skipnet", "spnet"])
def test_every_method_takes_a_network_with_blocks_that_always_run(method: str):
    torch.manual_seed(0)
    net = spnet.make_dynamic(torchvision.models.mobilenet_v3_large(num_classes=10), method, example=X, seed=0).eval()
    trace = net(X)
    always = [i for i, options in enumerate(net.options) if options == 1]
    assert len(always) == 5 and not any(net.gated[i] for i in always)
    assert (trace.decisions[:, always] == 0).all() and trace.macs.isfinite().all()


def test_a_router_that_decides_a_block_with_one_option_is_refused():
    net = spnet.make_dynamic(torchvision.models.mobilenet_v3_large(num_classes=10), "static", example=X)
    blocks = len(net.blocks)
    router = PooledMLP(net.backbone.input_widths, [2] * blocks, [True] * blocks, hidden=4)
    with pytest.raises(spnet.UserError, match="which has one option"):
        spnet.DynamicNetwork(net.backbone, router)


def test_a_new_classifier_leaves_the_given_network_alone():
    model = resnet18()
    net = spnet.make_dynamic(model, "static", example=X, num_classes=3)
    assert net.num_classes == 3 and net(X).logits.shape == (2, 3) and model(X).shape == (2, 10)
    assert net.backbone.state_dict()["fc.weight"].shape == (3, 512)
    report = take_state(net, resnet18().state_dict())
    assert report.reshaped == ("fc.weight", "fc.bias") and not report.missing and len(report.taken) == 120
    with pytest.raises(spnet.UserError, match="another network"):
        take_state(net, torchvision.models.resnet34().state_dict() | {"conv1.weight": torch.zeros(1)})


def test_hooks_fire_on_blocks_routers_and_stages():
    net = spnet.make_dynamic(resnet18(), "spnet", example=X)
    seen: list[str] = []
    assert net.router is not None
    net.backbone.blocks[3].register_forward_hook(lambda *_: seen.append("block"))
    net.backbone.stages[1].register_forward_hook(lambda *_: seen.append("stage"))
    net.router.register_forward_hook(lambda *_: seen.append("router"))
    net(X)
    assert (seen.count("block"), seen.count("stage"), seen.count("router")) == (1, 1, 8)


def test_a_block_that_was_replaced_is_the_one_that_runs():
    net = spnet.make_dynamic(resnet18(), "spnet", example=X)
    before = net(X).logits
    net.backbone.blocks[1] = ResidualBlock(nn.Identity(), nn.Conv2d(64, 64, 1), nn.ReLU())
    assert not torch.equal(net.forward_path(X, full_path(net)).logits, before)
    assert agreeing(net.forward_path(X, full_path(net)).logits, net.backbone(X), 1e-6)


def test_a_smooth_tail_is_no_identity():
    """SiLU behind SiLU changes what it gets: a skip must still apply it. A ReLU behind a ReLU does not."""
    x = images(2, (4, 5, 5)).relu()
    block = ResidualBlock(nn.Identity(), nn.Conv2d(4, 4, 1), nn.SiLU())
    assert not block.identity_skip and torch.equal(block.run(x, 0), nn.functional.silu(x))
    assert ResidualBlock(nn.Identity(), nn.Conv2d(4, 4, 1)).identity_skip
    plain = PlainBlock(nn.ReLU())
    assert plain.num_options == 1 and torch.equal(plain(x, 0), x) and len(plain.options) == 1


def test_skipping_leaves_its_input_alone():
    net = spnet.make_dynamic(resnet18(), "convnet-aig", example=X, skip_rule="plain")
    x = net.backbone.stem(X)
    for block in net.blocks:
        kept = x.clone()
        for option in (0, 1):
            block(x, option)
            assert torch.equal(x, kept)
        x = block(x, 0)
    assert net.forward_path(X, empty_path(net)).logits.isfinite().all()


def test_names_from_elsewhere(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    net = spnet.create_model("torchvision:resnet18", "spnet", num_classes=5, image_size=32, seed=0)
    assert net.backbone.name == "torchvision:resnet18" and net.num_classes == 5
    module = types.ModuleType("my_networks")
    exec(
        "import torchvision\ndef tiny(num_classes): return torchvision.models.resnet18(num_classes=num_classes)",
        vars(module),
    )
    monkeypatch.setitem(sys.modules, "my_networks", module)
    assert spnet.create_model("my_networks:tiny", "static", num_classes=4).num_classes == 4
    for name, words in (
        ("torchvision:resnett18", "Did you mean 'resnet18'"),
        ("timm:resnet51000", "unknown timm network"),
        ("no_such_module:build", "no_such_module"),
        ("my_networks:nothing", "has no function 'nothing'"),
        ("resnet9", "torchvision:NAME"),
    ):
        with pytest.raises(spnet.UserError, match=words):
            spnet.create_model(name, "static")
    assert main(["train", "--backbone", "torchvision:resnet19", "--data", "digits", "--out", "nowhere"]) == 2
    assert "resnet19" in capsys.readouterr().err


def test_the_example_brings_its_own_block(capsys: pytest.CaptureFixture[str]):
    import runpy

    runpy.run_path("examples/bring_your_own_block.py", run_name="__main__")
    out = capsys.readouterr().out
    assert "never: no adapter for blocks of class Conv2d" in out and "in 4 of 5 blocks" in out and "2 exits" in out


@pytest.mark.parametrize(
    "wrong", [{"exits": True}, {"exits": 3}, {"blocks": 2}, {"ignore": [1]}, {"exits": {"layer2"}}]
)
def test_names_that_are_no_names_are_refused_in_one_line(wrong: dict[str, Any]):
    with pytest.raises(spnet.UserError) as refused:
        spnet.make_dynamic(resnet18(), example=X, **wrong)
    assert str(refused.value).startswith(f"{next(iter(wrong))} takes names of ") and "\n" not in str(refused.value)


def test_nothing_chosen_may_be_said_as_none():
    net = spnet.make_dynamic(resnet18(), "dynamic", example=X, exits=None)  # type: ignore[arg-type]
    assert net.stage_heads is None


@pytest.mark.parametrize(("name", "value"), [("static_share", 0.5), ("ignore", ("layer1",)), ("blocks", "layer1")])
def test_a_setting_that_a_static_network_ignores_is_told_once(name: str, value: Any):
    with pytest.warns(spnet.NoEffectWarning, match=f"'{name}' has no effect with method 'static'") as told:
        spnet.make_dynamic(resnet18(), "static", example=X, **{name: value})
    assert len(told) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mean": [0.5]}, "mean takes a number for each of the 3 channels"),
        ({"mean": 0.5}, "mean takes a number for each"),
        ({"mean": [0.5, 0.5, math.nan]}, "mean takes a number for each"),
        ({"std": ["a"] * 3}, "std takes a number above 0 for each"),
        ({"std": [0, 1, 1]}, "std takes a number above 0 for each"),
        ({"example": None}, "example is a tensor of images"),
        ({"example": torch.zeros(3)}, "example is a tensor of images"),
        ({"example": torch.zeros(0, 3, 32, 32)}, "example is a tensor of images"),
        ({"model": None}, "make_dynamic takes a torch module, not NoneType"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(given: dict, words: str):
    whole = {"model": torchvision.models.resnet18(num_classes=4), "example": torch.zeros(1, 3, 32, 32), **given}
    with pytest.raises(UserError, match=words):
        make_dynamic(whole.pop("model"), "dynamic", **whole)


@pytest.mark.parametrize("kind", [tuple, np.array, torch.tensor])
def test_mean_and_std_may_be_arrays(kind):
    model, values = torchvision.models.resnet18(num_classes=4), kind([0.25, 0.5, 0.75])
    net = make_dynamic(model, "dynamic", example=torch.zeros(1, 3, 32, 32), mean=values, std=values)
    assert net.mean.flatten().tolist() == net.std.flatten().tolist() == [0.25, 0.5, 0.75]
