"""What is watched after every epoch, once for every chart that draws it: its name in the log, its title, its unit."""

from collections.abc import Callable
from dataclasses import dataclass

from spnet.report.figures.lines import Bounds
from spnet.report.numbers import significant


def one_decimal(value: float) -> str:
    return f"{value:.1f}"


@dataclass(frozen=True)
class Measure:
    """scale: what a logged value is multiplied by; bounds: ends of its axis; words: what is measured, on what."""

    name: str
    title: str
    y_title: str
    words: str
    scale: float = 1.0
    bounds: Bounds = (None, None)
    show: Callable[[float], str] = one_decimal


ACCURACIES = (
    Measure(
        "validation_accuracy",
        "Validation accuracy",
        "accuracy, %",
        "By the test rule, on images held out of training.",
    ),
    Measure(
        "probe_accuracy",
        "Probe accuracy",
        "accuracy, %",
        "By the test rule, on at most 512 of the training images: nothing was held out.",
    ),
)
COST = Measure(
    "cost_ratio",
    "Cost",
    "cost, % of the static network's MACs",
    "Arg-max decisions on the watched images, stage heads counted, before any calibration.",
    scale=100.0,
)
STABILITY = (
    Measure(
        "evolution_kl",
        "Feature evolution between stages",
        "evolution KL, nats",
        "KL divergence between the features of adjoining stages (pooled, softmax), mean over watched images and pairs "
        "of stages. Lower: features change less from stage to stage.",
        bounds=(0.0, None),
        show=significant,
    ),
    Measure(
        "flips",
        "Flipped decisions",
        "decisions flipped, %",
        "Share of the decisions on the same (at most 512) watched images that differ from the epoch before.",
        scale=100.0,
        bounds=(0.0, None),
    ),
    Measure(
        "path_agreement",
        "Path agreement",
        "decisions that agree, %",
        "Share of the decisions that stay the same when the watched image is augmented.",
        scale=100.0,
        bounds=(None, 100.0),
    ),
)
