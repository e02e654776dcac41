"""Networks of torchvision and timm: each becomes a dynamic network that shares its weights and, run in full, is it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from tiny import agreeing, empty_path, full_path, images, paths
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import spnet
from spnet.data import Augmentation, Dataset, Split
from spnet.inference.runtimes import branching, gathered
from spnet.runs.config import RunConfig
from spnet.training.fit import fit

Skipped = Callable[[Any, Tensor], Tensor]


# What is left of a network when every block that may be skipped is, written out from its own modules.


def tv_resnet(m: Any, x: Tensor) -> Tensor:
    x = m.maxpool(m.relu(m.bn1(m.conv1(x))))
    for block in (*m.layer1, *m.layer2, *m.layer3, *m.layer4):
        x = F.relu(block.downsample(x)) if block.downsample is not None else x
    return m.fc(m.avgpool(x).flatten(1))


def timm_resnet(m: Any, x: Tensor) -> Tensor:
    x = m.maxpool(m.act1(m.bn1(m.conv1(x))))
    for block in (*m.layer1, *m.layer2, *m.layer3, *m.layer4):
        x = F.relu(block.downsample(x)) if block.downsample is not None else x
    return m.forward_head(x)


def tv_regnet(m: Any, x: Tensor) -> Tensor:
    x = m.stem(x)
    for stage in m.trunk_output:
        for block in stage:
            x = F.relu(block.proj(x)) if block.proj is not None else x
    return m.fc(m.avgpool(x).flatten(1))


def timm_regnet(m: Any, x: Tensor) -> Tensor:
    x = m.stem(x)
    for stage in (m.s1, m.s2, m.s3, m.s4):
        for block in stage.children():
            x = F.relu(block.downsample(x))
    return m.head(x)


def tv_convnext(m: Any, x: Tensor) -> Tensor:
    for layer in (m.features[i] for i in (0, 2, 4, 6)):
        x = layer(x)
    return m.classifier(m.avgpool(x))


def timm_convnext(m: Any, x: Tensor) -> Tensor:
    x = m.stem(x)
    for stage in m.stages:
        x = stage.downsample(x)
    return m.head(x)


def tv_mobile(m: Any, x: Tensor) -> Tensor:
    for layer in m.features:
        for block in layer if type(layer) is nn.Sequential else [layer]:
            x = x if getattr(block, "use_res_connect", False) else block(x)
    return m.classifier(m.avgpool(x).flatten(1))


def timm_mobile(m: Any, x: Tensor) -> Tensor:
    x = m.bn1(m.conv_stem(x))
    for stage in m.blocks:
        for block in stage:
            x = x if block.has_skip else block(x)
    return m.forward_head(m.bn2(m.conv_head(x)) if hasattr(m, "bn2") else x)


def tv_vit(m: Any, x: Tensor) -> Tensor:
    x = torch.cat([m.class_token.expand(len(x), -1, -1), m._process_input(x)], 1) + m.encoder.pos_embedding
    return m.heads(m.encoder.ln(x)[:, 0])


def timm_vit(m: Any, x: Tensor) -> Tensor:
    return m.forward_head(m.norm(m._pos_embed(m.patch_embed(x))))


@dataclass(frozen=True)
class Row:
    """`skippable` blocks of `blocks`, of which `identity` hand their input on."""

    name: str
    size: int
    skipped: Skipped
    blocks: int
    skippable: int
    identity: int
    small: bool = True

    def __str__(self) -> str:
        return self.name

    def build(self, num_classes: int = 10) -> nn.Module:
        """Fresh, but with statistics, scales and classifiers that matter."""
        source, _, name = self.name.partition(":")
        torch.manual_seed(0)
        if source == "timm":
            size: dict[str, Any] = {"img_size": self.size} if "vit" in name or "deit" in name else {}
            model = timm.create_model(name, num_classes=num_classes, **size)
        else:
            size = {"image_size": self.size} if "vit" in name else {}
            model = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **size)
        with torch.no_grad():
            for key, value in model.state_dict().items():
                if key.endswith("running_var"):
                    value.uniform_(0.5, 1.5)
                elif "scale" in key or "gamma" in key:
                    value.uniform_(0.2, 0.8)
                elif value.is_floating_point() and (value.dim() == 1 or not value.any()):
                    value += 0.1 * torch.randn(value.shape)
        return model.eval()

    @property
    def example(self) -> Tensor:
        return images(2, (3, self.size, self.size))


ROWS = (
    Row("torchvision:resnet18", 32, tv_resnet, 8, 8, 5),
    Row("torchvision:resnet50", 32, tv_resnet, 16, 16, 12),
    Row("torchvision:regnet_y_400mf", 64, tv_regnet, 16, 16, 12),
    Row("torchvision:convnext_tiny", 32, tv_convnext, 21, 18, 18, small=False),
    Row("torchvision:efficientnet_b0", 64, tv_mobile, 16, 9, 9),
    Row("torchvision:mobilenet_v3_large", 64, tv_mobile, 15, 10, 10),
    Row("torchvision:mobilenet_v2", 64, lambda m, x: _mobilenet_v2(m, x), 17, 10, 10),
    Row("torchvision:vit_b_16", 32, tv_vit, 24, 24, 24, small=False),
    Row("timm:resnet50", 32, timm_resnet, 16, 16, 12),
    Row("timm:resnet26d", 32, timm_resnet, 8, 8, 4),
    Row("timm:regnety_004", 64, timm_regnet, 16, 16, 12),
    Row("timm:convnext_atto", 32, timm_convnext, 15, 12, 12),
    Row("timm:tf_efficientnet_lite0", 64, timm_mobile, 16, 9, 9),
    Row("timm:mobilenetv3_large_100", 64, timm_mobile, 16, 10, 10),
    Row("timm:deit_tiny_patch16_224", 32, timm_vit, 24, 24, 24),
)


def _mobilenet_v2(m: Any, x: Tensor) -> Tensor:
    for layer in m.features:
        x = x if getattr(layer, "use_res_connect", False) else layer(x)
    return m.classifier(x.mean((2, 3)))


every_network = pytest.mark.parametrize(
    "row", [pytest.param(row, marks=() if row.small else pytest.mark.slow) for row in ROWS], ids=str
)


@every_network
@torch.no_grad()
def test_in_full_it_is_the_original_and_skipped_what_is_left_of_it(row: Row):
    model, x = row.build(), row.example
    net = spnet.make_dynamic(model, "convnet-aig", example=x)
    expected = model(x)
    assert expected.std() > 0.01
    assert agreeing(net.forward_path(x, full_path(net)).logits, expected, 1e-6)
    assert agreeing(net.backbone(x), expected, 1e-6)
    assert agreeing(net.forward_path(x, empty_path(net)).logits, row.skipped(model, x), 1e-6)
    counts = len(net.blocks), sum(net.gated), sum(block.identity_skip for block in net.blocks if block.num_options > 1)
    assert counts == (row.blocks, row.skippable, row.identity)
    for executor in (gathered, branching):  # what really skips agrees with what computes everything
        part = x if executor is gathered else x[:1]
        chosen = paths(net, len(part), 1)
        own = net.forward_path(part, chosen, executor=executor)
        assert agreeing(own.logits, net.forward_path(part, chosen).logits, 1e-5)


@every_network
@torch.no_grad()
def test_multiply_adds_are_what_torch_counts(row: Row):
    model, x = row.build(), row.example[:1]
    backbone = spnet.make_dynamic(model, "static", example=x).backbone
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert backbone.static_macs == counter.get_total_flops() // 2


@every_network
def test_weights_and_their_names_are_the_originals(row: Row):
    model = row.build()
    net = spnet.make_dynamic(model, "dynamic", example=row.example)
    state = net.backbone.state_dict()
    original = model.state_dict()
    assert state.keys() == original.keys()
    assert all(torch.equal(state[name], value) for name, value in original.items())
    assert {id(p) for p in net.backbone.parameters()} == {id(p) for p in model.parameters()}
    changed = {name: value + 1 for name, value in original.items()}
    net.backbone.load_state_dict(changed)
    assert all(torch.equal(value, changed[name]) for name, value in model.state_dict().items())


def photos(size: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (12, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.arange(12) % 3
    split = Split(pixels[:8], labels[:8])
    return Dataset(
        "photos", split, Split(pixels[8:], labels[8:]), ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3, Augmentation(1, True)
    )


class StoppedError(Exception):
    pass


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-B/16 of 3 layers of its size instead of 12, where a state of a gigabyte would only be written and read."""
    build = torchvision.models.vision_transformer._vision_transformer
    monkeypatch.setattr(
        torchvision.models.vision_transformer,
        "_vision_transformer",
        lambda **settings: build(**{**settings, "num_layers": 3}),
    )


QUICK = ("torchvision:mobilenet_v3_large", "timm:convnext_atto", "timm:deit_tiny_patch16_224")


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=() if row.name == "timm:convnext_atto" else pytest.mark.slow) for row in ROWS],
    ids=str,
)
def test_trains_stops_resumes_and_loads_bit_for_bit(row: Row, tmp_path: Path, few_layers: None):
    """Two epochs of two steps each, in one go and in two; dropout and stochastic depth included. Large networks without
    SP-Net's momentum copy, for states of a gigabyte are written."""
    settings = {"epochs": 2, "batch_size": 4, "lr": 0.01, "validation": 0.0, "precision": "fp32"}
    config = RunConfig("spnet" if row.name in QUICK else "dynamic", "", row.name, "photos", settings)
    data = photos(row.size)
    whole = fit(config, data, tmp_path / "whole")

    def stop(row: object) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        fit(config, data, tmp_path / "parts", report=stop)
    resumed = fit(config, data, tmp_path / "parts", resume=True)
    loaded = spnet.load(tmp_path / "parts")
    state = whole.net.state_dict()
    assert any(name.startswith(f"backbone.{next(iter(row.build().state_dict()))}") for name in state)
    for other in (resumed.net, loaded):
        assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    x = data.test.images
    assert torch.equal(loaded(x).logits, spnet.load(tmp_path / "whole")(x).logits)
