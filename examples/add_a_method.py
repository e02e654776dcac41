"""Add a method in one file: stochastic depth (Huang et al., ECCV 2016) as a dynamic method that needs no router at
test.

    python examples/add_a_method.py

In the library this file would be `src/spnet/methods/stochastic_depth.py`, with a card beside it and one row in
`tests/cases.py`.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from spnet import data, list_methods
from spnet.methods import Method, MethodConfig, Phase
from spnet.methods.base import classification_loss
from spnet.network.sampling import Draw
from spnet.routers import PooledMLP
from spnet.runs.config import RunConfig
from spnet.settings import setting
from spnet.training.fit import fit


@dataclass(frozen=True)
class StochasticDepthConfig(MethodConfig):
    survival: float = setting(0.8, "probability that the last block runs while training; earlier ones run more often")


@dataclass(frozen=True)
class LinearDecay:
    """Runs block i with probability 1 - (i + 1)/N * (1 - survival), whatever the router says."""

    blocks: int
    survival: float
    needs_logits: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True

    def __call__(self, i: int, logits_BK: torch.Tensor, noise: torch.Generator | None) -> Draw:
        probability = 1 - (i + 1) / self.blocks * (1 - self.survival)
        run = (torch.rand(len(logits_BK), generator=noise) < probability).float()
        return Draw(torch.stack([1 - run, run], 1), torch.zeros(len(logits_BK)))


class StochasticDepth(Method):
    name = "stochastic-depth"
    Config = StochasticDepthConfig

    def build_router(self, backbone):
        """A router that nobody trains: at its opening bias it runs every block, which is the published test rule."""
        self.blocks = len(backbone.blocks)
        return PooledMLP(backbone.input_widths, backbone.options, [True] * self.blocks, hidden=1)

    def phases(self, epochs: int) -> list[Phase]:
        sampler = LinearDecay(self.blocks, self.config.survival)
        keep_router = lambda name: not name.startswith("router.")  # noqa: E731
        return [Phase("stochastic-depth", epochs, classification_loss, sampler, trainable=keep_router)]


def main() -> None:
    assert "stochastic-depth" in list_methods()
    settings = {"epochs": 2, "batch_size": 64, "survival": 0.7, "validation": 0.0}
    run = RunConfig("stochastic-depth", backbone="resnet8", data="digits", settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(run, data.load("digits"), Path(folder) / "run").result
    assert result is not None
    figures = result["final"]
    print(
        f"{run.method}: {figures['accuracy']:.1f} % at {100 * figures['cost_ratio']:.0f} % of static after two epochs"
    )


if __name__ == "__main__":
    main()
