"""Scales: how large the networks, data and lists of an experiment are. The experiments themselves know none of it.

smoke   seconds a run; proves that the code works
digits  a minute a run; embedded data; proves that the methods work, ranks nothing
cpu     minutes a run on two cores; a class-balanced fifth of CIFAR
full    an hour a run on two cores; all of CIFAR-10, twelve epochs, every row with equal passes
gpu     minutes a run on a GPU; the paper's network and all of CIFAR, a sixth of the epochs
paper   the paper's networks and epochs, for a GPU
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spnet.recipes import cifar, digits


@dataclass(frozen=True)
class Scale:
    """What the runs of an experiment have in common.

    Attributes:
        datasets: the first stands for the paper's CIFAR-10, the second (if any) for CIFAR-100.
        second: what is made on the second data set: `all`, or `core` (Table 2 and the methods around SP-Net itself).
        sweep_seeds: how many seeds a long grid gets (Table 1): where time is short, seeds go before methods.
        ladder: static networks from small to full; the last is `backbone`.
        base: settings of every run.
        dynamic: settings that runs with decisions add; the budgets are the shares of static cost they are matched to.
        caution: a sentence every table of this scale carries.
    """

    name: str
    datasets: tuple[str, ...]
    backbone: str
    ladder: tuple[str, ...]
    base: Mapping[str, Any]
    dynamic: Mapping[str, Any]
    seeds: tuple[int, ...]
    caution: str
    second: str = "all"
    sweep_seeds: int = 5

    @property
    def main_datasets(self) -> tuple[str, ...]:
        """Those that every table is made on."""
        return self.datasets if self.second == "all" else self.datasets[:1]

    @property
    def budgets(self) -> tuple[float, ...]:
        return (self.dynamic["budget"], *self.dynamic["more_budgets"])


_SMOKE = {"epochs": 4, "batch_size": 64, "subset": 128, "clip_value": 0.5, "validation": 0.0}
_COMMON = {"static_share": 0.33, "target": 0.6, "budget": 0.79, "more_budgets": (0.5,)}

SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "smoke",
            ("digits",),
            "resnet8",
            ("resnet8",),
            _SMOKE,
            {**_COMMON, "static_share": 0.25},
            (0,),
            "Scale smoke: seconds a run. It proves that the code runs; the figures mean nothing.",
        ),
        Scale(
            "digits",
            ("digits",),
            "resnet20",
            ("resnet8", "resnet14", "resnet20"),
            {name: value for name, value in digits.SETTINGS.items() if name not in digits.DYNAMIC},
            {**digits.DYNAMIC, "more_budgets": (0.5,)},
            (0, 1, 2, 3, 4),
            "Scale digits: 450 test images carry a standard error near 0.6 points. It proves that things work and "
            "ranks nothing.",
        ),
        Scale(
            "cpu",
            ("cifar10", "cifar100"),
            "resnet20",
            ("resnet8", "resnet14", "resnet20"),
            cifar.CPU,
            cifar.DYNAMIC_CPU,
            (0, 1, 2),
            "Scale cpu: ResNet-20, 10,000 training images, 12 epochs. Far from the paper's training; compare rows, not "
            "figures.",
            second="core",
            sweep_seeds=1,
        ),
        Scale(
            "full",
            ("cifar10",),
            "resnet20",
            ("resnet8", "resnet14", "resnet20"),
            cifar.LADDER,
            {**_COMMON, "more_budgets": (0.65, 0.5)},
            (0, 1, 2),
            "Scale full: ResNet-20, all training images, 600,000 images through the student in every row, the static "
            "start among them. A thirtieth of the paper's training.",
            sweep_seeds=1,
        ),
        Scale(
            "gpu",
            ("cifar10", "cifar100"),
            "resnet110",
            ("resnet20", "resnet32", "resnet56", "resnet110"),
            cifar.GPU,
            _COMMON,
            (0, 1, 2),
            "Scale gpu: ResNet-110, all training images, 60 epochs in all, the static start among them.",
        ),
        Scale(
            "paper",
            ("cifar10", "cifar100"),
            "resnet110",
            ("resnet20", "resnet32", "resnet56", "resnet110"),
            {name: value for name, value in cifar.PAPER.items() if name not in cifar.DYNAMIC_CPU},
            _COMMON,
            (0, 1, 2, 3, 4),
            "Scale paper: ResNet-110, 349 epochs in all, the static start among them.",
        ),
    )
}
