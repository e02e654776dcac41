"""The command line that makes a run again, from its config alone."""

import shlex
from typing import Any

from spnet.runs.config import RunConfig


def command(config: RunConfig, init: str = "") -> str:
    """`spnet train --method ...` with every setting that differs from its default; `init`: the run it starts from."""
    words = ["spnet", "train", "--method", config.method]
    words += ["--with", config.wrapper] if config.wrapper else []
    words += ["--backbone", config.backbone, "--data", config.data]
    always = _given_by_the_recipe(config)
    for chosen in config.parts:
        usual = type(chosen)()
        for name in vars(usual):
            value = getattr(chosen, name)
            if value != getattr(usual, name) or name in always:
                words += ["--" + name.replace("_", "-"), written(value)]
    words += ["--init", init] if init else []
    return shlex.join(words)


def written(value: Any) -> str:
    """A setting as its flag takes it: `none`, `true`, `0.1,0.2`."""
    if isinstance(value, (tuple, list)):
        return ",".join(written(part) for part in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _given_by_the_recipe(config: RunConfig) -> set[str]:
    """On digits `spnet train` starts from a recipe, whose settings must be named even where they are the default."""
    from spnet.recipes import recipe

    return set(recipe("digits").settings) if config.data == "digits" else set()
