"""The contract holds for blocks and methods nobody had in mind: a torchvision bottleneck, a transformer layer as two
blocks, and a method that lives in this file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import agreeing, empty_path, full_path, images, lively, paths, routed_alike
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, conv1x1

from spnet import DynamicNetwork, create_model, list_methods
from spnet.backbones.base import Backbone
from spnet.bench.macs import counted_macs
from spnet.data import Dataset
from spnet.inference.runtimes import branching, gathered
from spnet.methods import Batch, Losses, Method, MethodConfig, Phase, Step
from spnet.methods.base import classification_loss
from spnet.network.block import Block, ResidualBlock
from spnet.network.dynamic import Noise
from spnet.network.heads import StageHeads
from spnet.network.sampling import GumbelStraightThrough
from spnet.routers import PooledMLP
from spnet.runs.config import RunConfig
from spnet.settings import setting
from spnet.training.fit import fit


class TorchvisionBottleneck(Block):
    """torchvision's own module; option 0 is its shortcut alone."""

    num_options = 2

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        project = stride != 1 or in_channels != out
        shortcut = nn.Sequential(conv1x1(in_channels, out, stride), nn.BatchNorm2d(out)) if project else None
        self.inner = Bottleneck(in_channels, width, stride, shortcut)

    def run(self, x: Tensor, option: int) -> Tensor:
        if option == 1:
            return self.inner(x)
        return F.relu(self.inner.downsample(x) if self.inner.downsample is not None else x)

    def mix(self, x: Tensor, gate_BK: Tensor) -> Tensor:
        gate = gate_BK.to(x.dtype)[:, :, None, None, None]
        return gate[:, 0] * self.run(x, 0) + gate[:, 1] * self.run(x, 1)


def bottlenecks() -> Backbone:
    blocks = [
        TorchvisionBottleneck(8, 2, 1),
        TorchvisionBottleneck(8, 2, 1),
        TorchvisionBottleneck(8, 4, 2),
        TorchvisionBottleneck(16, 4, 1),
    ]
    return Backbone(
        name="toy-bottlenecks",
        stem=nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()),
        blocks=blocks,
        stages=(2, 2),
        head=nn.Linear(16, 5),
        pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        input_shape=(3, 8, 8),
    )


WIDTH = 8


class Attention(nn.Module):
    """One head over (B, tokens, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=2)
        return self.out((q @ k.transpose(1, 2) / WIDTH**0.5).softmax(2) @ v)


class Patches(nn.Module):
    """(B, 3, 8, 8) -> (B, 4 tokens, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x).flatten(2).transpose(1, 2)


class MeanOfTokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def transformer() -> Backbone:
    blocks: list[Block] = []
    for _ in range(3):
        for branch in (Attention(), nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))):
            blocks.append(ResidualBlock(nn.Identity(), nn.Sequential(nn.LayerNorm(WIDTH), branch)))
    return Backbone(
        name="toy-transformer",
        stem=Patches(),
        blocks=blocks,
        stages=(2, 2, 2),
        head=nn.Linear(WIDTH, 5),
        pool=MeanOfTokens(),
        input_shape=(3, 8, 8),
    )


def dynamic(family: Callable[[], Backbone]) -> DynamicNetwork:
    torch.manual_seed(0)
    backbone = family()
    blocks = len(backbone.blocks)
    router = PooledMLP(backbone.input_widths, [2] * blocks, [True] * blocks, hidden=6)
    return lively(DynamicNetwork(backbone, router, StageHeads(backbone.stage_widths, 5, aligned=False)))


every_family = pytest.mark.parametrize("family", [bottlenecks, transformer])


@every_family
def test_blocks_fulfil_the_protocol(family: Callable[[], Backbone]):
    net = dynamic(family)
    x = net.backbone.stem(images(3, (3, 8, 8)))
    for block in net.blocks:
        assert isinstance(block, Block)
        for option in range(2):
            assert agreeing(block.mix(x, torch.eye(2)[option].expand(3, -1)), block.run(x, option), 1e-6)
        x = block.run(x, 1)


@every_family
@torch.no_grad()
def test_forced_paths_and_counts(family: Callable[[], Backbone]):
    net, x = dynamic(family), images(7, (3, 8, 8))
    for decisions in (paths(net, 7), full_path(net).expand(7, -1), empty_path(net).expand(7, -1)):
        expected, skipping = net.forward_path(x, decisions), net.forward_path(x, decisions, executor=gathered)
        assert agreeing(skipping.logits, expected.logits)
        assert torch.equal(skipping.macs, expected.macs)
        assert counted_macs(net, x, decisions, gathered) == int(expected.macs.sum())
        alone = net.forward_path(x[:1], decisions[0], executor=branching)
        assert agreeing(alone.logits, expected.logits[:1])
    assert int(net.forward_path(x, full_path(net), heads=False).macs[0]) == net.static_macs + sum(net.router.macs)  # type: ignore


@every_family
@torch.no_grad()
def test_free_decisions(family: Callable[[], Backbone]):
    net, x = dynamic(family), images(24, (3, 8, 8))
    expected, skipping = net(x), net(x, executor=gathered)
    sure = routed_alike(net, expected.router_logits).all(1)
    assert sure.float().mean() > 0.9 and len(expected.decisions.unique(dim=0)) > 1
    assert torch.equal(skipping.decisions[sure], expected.decisions[sure])
    assert agreeing(skipping.logits[sure], expected.logits[sure])
    left = net(x, executor=gathered, exit_confidence=float(expected.stage_logits[0].softmax(1).amax(1).median()))
    assert 0 < int((left.exit_stage == 0).sum()) < 24


@every_family
def test_a_training_step(family: Callable[[], Backbone]):
    net, labels = dynamic(family).train(), torch.arange(16) % 5
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for _ in range(6):
        trace = net(
            images(16, (3, 8, 8)), sampler=GumbelStraightThrough(), noise=Noise(torch.Generator().manual_seed(0))
        )
        loss = torch.stack([F.cross_entropy(z, labels) for z in trace.stage_logits]).sum()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# A method in a file of its own, which nothing else knows about


@dataclass(frozen=True)
class ShyConfig(MethodConfig):
    shyness: float = setting(0.1, "weight of the mean of all gates")


class Shy(Method):
    """Runs as little as it can."""

    name = "toy-shy"
    Config = ShyConfig

    def build_router(self, backbone: Backbone) -> PooledMLP:
        blocks = len(backbone.blocks)
        return PooledMLP(backbone.input_widths, [2] * blocks, [True] * blocks, hidden=4)

    def phases(self, epochs: int) -> list[Phase]:
        return [Phase("shy", epochs, self.objective, GumbelStraightThrough())]

    def objective(self, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        losses = classification_loss(net, batch, step)
        losses.terms["shyness"] = (
            self.config.shyness * torch.stack([gate[:, 1].mean() for gate in losses.trace.gates]).mean()
        )
        return losses


def test_a_new_method_is_found():
    assert "toy-shy" in list_methods() and "spnet" in list_methods()
    assert create_model("resnet8", "toy-shy", shyness=0.5).options == (2, 2, 2)


@pytest.mark.parametrize("wrapper", ["", "spnet"])
def test_a_new_method_trains_wrapped_or_not(wrapper: str, digits: Dataset, tmp_path: Path):
    config = RunConfig(
        "toy-shy", wrapper, "resnet8", "digits", {"epochs": 1, "batch_size": 32, "shyness": 0.2, "validation": 0.0}
    )
    outcome = fit(config, digits, tmp_path / "run")
    assert outcome.finished and "shyness" in outcome.rows[0].losses
    assert ("path" in outcome.rows[0].losses) == bool(wrapper)
    import spnet

    loaded = spnet.load(tmp_path / "run")
    assert torch.equal(loaded.backbone.head.weight, outcome.net.backbone.head.weight)  # type: ignore[arg-type]
