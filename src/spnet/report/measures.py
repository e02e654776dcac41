"""What is watched after every epoch, once for every chart that draws it: its figure in the log, title, unit."""

from collections.abc import Callable
from dataclasses import dataclass

from spnet.report.figures.lines import Bounds
from spnet.report.numbers import significant
from spnet.runs.record import EpochRow


def one_decimal(value: float) -> str:
    return f"{value:.1f}"


@dataclass(frozen=True)
class Measure:
    """figure: read from a row of the log; scale: what it is multiplied by; bounds: ends of its axis; words: what is
    measured, on what."""

    figure: Callable[[EpochRow], float]
    title: str
    y_title: str
    words: str
    scale: float = 1.0
    bounds: Bounds = (None, None)
    show: Callable[[float], str] = one_decimal


ACCURACIES = (
    Measure(
        lambda row: row.validation_accuracy,
        "Validation accuracy",
        "accuracy, %",
        "By the test rule, on images held out of training.",
    ),
    Measure(
        lambda row: row.probe_accuracy,
        "Probe accuracy",
        "accuracy, %",
        "By the test rule, on at most 512 of the training images: nothing was held out.",
    ),
)
COST = Measure(
    lambda row: row.cost_ratio,
    "Cost",
    "cost, % of the static network's MACs",
    "Arg-max decisions on the watched images, stage heads counted, before any calibration.",
    scale=100.0,
)
STABILITY = (
    Measure(
        lambda row: row.evolution_kl,
        "Feature evolution between stages",
        "evolution KL, nats",
        "KL divergence between the features of adjoining stages (pooled, softmax), mean over watched images and pairs "
        "of stages. Lower: features change less from stage to stage.",
        bounds=(0.0, None),
        show=significant,
    ),
    Measure(
        lambda row: row.flips,
        "Flipped decisions",
        "decisions flipped, %",
        "Share of the decisions on the same (at most 512) watched images that differ from the epoch before.",
        scale=100.0,
        bounds=(0.0, None),
    ),
    Measure(
        lambda row: row.path_agreement,
        "Path agreement",
        "decisions that agree, %",
        "Share of the decisions that stay the same when the watched image is augmented.",
        scale=100.0,
        bounds=(None, 100.0),
    ),
)
