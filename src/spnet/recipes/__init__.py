"""Recipes: functions that return a full `RunConfig`; the docstring is the command and the expected result."""

from collections.abc import Callable

from spnet.errors import choose
from spnet.recipes import digits
from spnet.training.config import RunConfig

RECIPES: dict[str, Callable[[], RunConfig]] = {"digits": digits.spnet}


def recipe(name: str) -> RunConfig:
    return RECIPES[choose("recipe", name, RECIPES)]()
