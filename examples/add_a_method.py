"""Add a method with a kind of router that the library does not have: a small convolution looks at every block's input.

    python examples/add_a_method.py

A method is one folder. In the library this one would be `src/spnet/methods/strided_look/`: `router.py` and `method.py`
as below, a `card.md`, and one row in `tests/cases.py`. In a package of your own it is any module that you import, or
that the package names in the entry-point group `spnet.methods`; `spnet train --method strided-look` then knows it.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import spnet
from spnet import data
from spnet.backbones.base import Backbone
from spnet.methods import Batch, Losses, Method, Phase, Step
from spnet.methods.base import classification_loss
from spnet.methods.rates import RateConfig, add_rate_terms
from spnet.network.dynamic import DynamicNetwork
from spnet.network.sampling import GumbelStraightThrough
from spnet.routers import Router, State
from spnet.runs.config import RunConfig
from spnet.settings import setting
from spnet.training.fit import fit

# router.py: functions of tensors, so that the same router is trained, run and exported to ONNX


class StridedLook(Router):
    """A 3x3 convolution of stride 2 over a block's input, its maximum, and a linear layer.

    Args:
        shapes: (C, height, width) of each block's input.
        gated: which blocks have a router.
        width: channels of the convolution.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], gated: Sequence[bool], width: int) -> None:
        super().__init__()
        self.gated = tuple(gated)
        self.looks, self.decide = nn.ModuleDict(), nn.ModuleDict()
        macs = [0] * len(self.gated)
        for i in (i for i, has_router in enumerate(gated) if has_router):
            channels, height, wide = shapes[i]
            self.looks[str(i)] = nn.Conv2d(channels, width, 3, stride=2, padding=1)
            self.decide[str(i)] = nn.Linear(width, 2)
            macs[i] = 9 * channels * width * -(-height // 2) * -(-wide // 2) + 2 * width
        self.macs = tuple(macs)

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """(B, 2) scores of skip and run. What a router remembers from block to block would travel in `state`."""
        return self.decide[str(i)](self.looks[str(i)](x).relu().amax((2, 3))), state


# method.py: settings, which network, which phases, which losses


@dataclass(frozen=True)
class StridedLookConfig(RateConfig):
    """Each field is a keyword of `create_model`, a flag of `spnet train` and a key of config.json. `RateConfig` brings
    those of the target-rate loss, which holds every block's execution rate to `target`."""

    width: int = setting(4, "channels of a router's convolution")


class StridedLookMethod(Method):
    name = "strided-look"
    Config = StridedLookConfig

    def build_router(self, backbone: Backbone) -> StridedLook:
        return StridedLook(backbone.input_shapes, self.config.gated(backbone), self.config.width)

    def phases(self, epochs: int) -> list[Phase]:
        return [Phase("strided-look", epochs, self.objective, GumbelStraightThrough())]

    def objective(self, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        """Cross-entropy and target rate; a loss of its own would be one more entry of `terms`."""
        return add_rate_terms(classification_loss(net, batch, step), net, self.config)


def main() -> None:
    assert "strided-look" in spnet.list_methods()
    digits = data.load("digits")
    settings = {"epochs": 4, "batch_size": 32, "lr": 0.05, "target": 0.5, "budget": 0.7, "validation": 0.0}
    run = RunConfig("strided-look", backbone="resnet8", data="digits", settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(run, digits, Path(folder) / "run").result
        net = spnet.load(Path(folder) / "run")
    assert result is not None
    figures = result.final
    print(f"{run.method}: {figures.accuracy:.1f} % at {100 * figures.cost_ratio:.0f} % of static after four epochs")
    path = spnet.Engine(net, "branching")(digits.test.images[:1]).decisions[0].tolist()
    print(f"the first test image ran blocks {[i for i, option in enumerate(path) if option]} of {len(path)}")


if __name__ == "__main__":
    main()
