"""Recipes: functions that return a full `RunConfig`; the docstring is the command and the expected result."""

from collections.abc import Callable

from spnet.errors import choose
from spnet.recipes import cifar, digits
from spnet.runs.config import RunConfig

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "digits": digits.spnet,
    "cifar10-resnet20-cpu": cifar.cifar10_resnet20_cpu,
    "cifar100-resnet20-cpu": cifar.cifar100_resnet20_cpu,
    "cifar10-static": cifar.cifar10_static,
    "cifar10-small": cifar.cifar10_small,
    "cifar10-full": cifar.cifar10_full,
    "cifar10-fast": cifar.cifar10_fast,
    "cifar10-resnet110-paper": cifar.cifar10_resnet110_paper,
    "cifar100-resnet110-paper": cifar.cifar100_resnet110_paper,
}


def recipe(name: str) -> RunConfig:
    return RECIPES[choose("recipe", name, RECIPES)]()
