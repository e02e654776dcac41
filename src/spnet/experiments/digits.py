"""The digits table: proof that things work, never a ranking (450 test images carry a standard error near 0.6 points).

Common recipe: same seed, same initial backbone, order, augmentation, optimiser, and the same number of passes of the
student; the first 30 % of the epochs on the plain network. Cost is matched after training on training images.
"""

from spnet.experiments.table import Row
from spnet.recipes import digits
from spnet.training.config import RunConfig

SEEDS = (0, 1, 2, 3, 4)
BUDGETS = (0.7, 0.5)
DYNAMIC = (("convnet-aig", ""), ("convnet-aig", "spnet"), ("dynamic", ""), ("spnet", ""))
LADDER = ("resnet8", "resnet14", "resnet20")


def _runs(method: str, wrapper: str, backbone: str, seeds: tuple[int, ...]) -> tuple[RunConfig, ...]:
    base = digits.spnet()
    settings = dict(base.settings)
    if method == "static":
        for name in ("target", "static_share", "budget"):
            del settings[name]
    else:
        settings["more_budgets"] = tuple(b for b in BUDGETS if b != settings["budget"])
    return tuple(RunConfig(method, wrapper, backbone, "digits", {**settings, "seed": seed}) for seed in seeds)


def rows(seeds: tuple[int, ...] = SEEDS) -> list[Row]:
    """The static ladder (with and without SP-Net's heads and teacher), then every method at every budget."""
    found = [Row(f"static {name}", _runs("static", "", name, seeds)) for name in LADDER]
    found.append(Row("static resnet20 + spnet", _runs("static", "spnet", "resnet20", seeds)))
    for budget in BUDGETS:
        for method, wrapper in DYNAMIC:
            runs = _runs(method, wrapper, "resnet20", seeds)
            found.append(Row(f"{runs[0].label} at {budget}", runs, f"budget:{budget}"))
    for method, wrapper in DYNAMIC:
        runs = _runs(method, wrapper, "resnet20", seeds)
        found.append(Row(f"{runs[0].label} uncalibrated", runs, "last"))
    return found


BASELINE = "static resnet20"
