"""CIFAR: the scales `cpu` (minutes a run), `full` (the networks that ship) and `paper` (ResNet-110, 349 epochs)."""

from spnet.runs.config import RunConfig

CPU = {
    "epochs": 12,
    "batch_size": 64,
    "subset": 10_000,
    "lr": 0.1,
    "schedule": "onecycle",
    "lr_warmup": 0.2,
    "nesterov": True,
    "weight_decay": 5e-4,
    "clip_value": 0.5,
    "validation": 0.0,
}
"""What every method shares at scale `cpu`: a fixed class-balanced 10,000-image part, the full test set."""

DYNAMIC_CPU = {"static_share": 0.33, "target": 0.6, "budget": 0.79, "more_budgets": (0.5,)}
"""What a dynamic method adds: the first third on the plain network; cost matched after training to the
share of the paper's 0.40 GFLOPs, and to a half."""

FULL = {
    "batch_size": 128,
    "schedule": "onecycle",
    "lr_warmup": 0.2,
    "nesterov": True,
    "weight_decay": 5e-4,
    "validation": 0.0,
}
"""What the networks that ship share: all 50,000 images, one cycle of the learning rate, no validation part."""

LADDER = {**FULL, "epochs": 12, "lr": 0.2, "clip_value": 0.5}
"""What every row of scale `full` shares: 600,000 images through the student, so twelve epochs where a step makes one
pass."""

GPU = {**FULL, "epochs": 60, "lr": 0.1, "clip_value": 0.5}
"""What the runs of `scripts/gpu.py` share: ResNet-110 on all images, minutes a run on a GPU."""

PAPER = {
    "epochs": 349,
    "batch_size": 128,
    "lr": 0.1,
    "schedule": "multistep",
    "milestones": (0.43, 0.716),
    "weight_decay": 1e-4,
    "clip_value": 0.5,
    "validation": 0.0,
    "budget": 0.79,
    "more_budgets": (0.91,),
}
"""The authors' recipe; it starts from a trained static network of the same depth (`--init RUN`). The budgets are the
shares of the static cost that the paper's 0.40 and 0.46 GFLOPs stand for."""


def cifar10_resnet20_cpu() -> RunConfig:
    """SP-Net on 10,000 images of CIFAR-10, minutes on two cores: `spnet train --recipe cifar10-resnet20-cpu`."""
    return RunConfig("spnet", "", "resnet20", "cifar10", {**CPU, **DYNAMIC_CPU})


def cifar100_resnet20_cpu() -> RunConfig:
    """The same on CIFAR-100: `spnet train --recipe cifar100-resnet20-cpu`."""
    return RunConfig("spnet", "", "resnet20", "cifar100", {**CPU, **DYNAMIC_CPU})


def cifar10_static() -> RunConfig:
    """The static network that ships, and the start of `cifar10-full`: `spnet train --recipe cifar10-static`.

    91.25 % (one run; docs/results.md).
    """
    return RunConfig("static", "", "resnet32", "cifar10", {**FULL, "epochs": 24, "lr": 0.2})


def cifar10_small() -> RunConfig:
    """The small network that ships, to stand in front of a larger one: `spnet train --recipe cifar10-small`."""
    return RunConfig("static", "", "resnet8", "cifar10", {**FULL, "epochs": 24, "lr": 0.2})


def cifar10_resnet110_paper() -> RunConfig:
    """The paper's setting, for a GPU: `spnet train --recipe cifar10-resnet110-paper --init STATIC_RUN`."""
    return RunConfig("spnet", "", "resnet110", "cifar10", PAPER)


def cifar100_resnet110_paper() -> RunConfig:
    """The same on CIFAR-100: `spnet train --recipe cifar100-resnet110-paper --init STATIC_RUN`."""
    return RunConfig("spnet", "", "resnet110", "cifar100", PAPER)


def cifar10_full() -> RunConfig:
    """The SP-Net that ships: `spnet train --recipe cifar10-full --init cifar10-static`.

    91.20 % at 78.8 % of the static cost (one run; docs/results.md).
    """
    # Longer steps than a finetuning would take: routers and features must find each other.
    settings = {"epochs": 24, "lr": 0.1, "weight_decay": 2e-4}
    settings |= {"target": 0.7, "budget": 0.79, "more_budgets": (0.5, 0.65)}
    return RunConfig("spnet", "", "resnet32", "cifar10", {**FULL, **settings})


def cifar10_fast() -> RunConfig:
    """The SP-Net for milliseconds, one router a stage: `spnet train --recipe cifar10-fast --init cifar10`.

    A router decides all five blocks of its stage. It is new and must be learned, while the features stand already: a
    third of the epochs of `cifar10-full`.
    """
    settings = {"epochs": 8, "lr": 0.05, "weight_decay": 2e-4, "lookahead": 5}
    settings |= {"target": 0.6, "budget": 0.65, "more_budgets": (0.5, 0.79)}
    return RunConfig("spnet", "", "resnet32", "cifar10", {**FULL, **settings})
