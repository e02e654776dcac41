"""What the finished network does with each test image: the only part of the page that runs a network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spnet.errors import UserError
from spnet.report.numbers import finite, percent_of
from spnet.report.run import Run

if TYPE_CHECKING:
    from spnet.data import Dataset, Source

LoadData = Callable[[str], "Dataset"]


@dataclass(frozen=True)
class Tested:
    """Shapes: N test images, L blocks. confidence: (N,) probability of the class predicted. shares: (N,)
    cost of each image as a share of the static network's.

    note: one sentence where the figures found here differ from those in result.json; else empty.
    """

    images: "Source"
    labels: list[int]
    predicted: list[int]
    confidence: list[float]
    shares: list[float]
    decisions: list[list[int]]
    options: tuple[int, ...]
    gated: tuple[bool, ...]
    stage_lengths: tuple[int, ...]
    classes: tuple[str, ...]
    note: str = ""

    def path(self, i: int) -> str:
        """`101|011|111`: the option of each block, stages apart, a dot for a block never reached."""
        marks = ["·" if d < 0 else str(d) for d in self.decisions[i]]
        ends = [sum(self.stage_lengths[: s + 1]) for s in range(len(self.stage_lengths))]
        return "|".join("".join(marks[e - n : e]) for e, n in zip(ends, self.stage_lengths, strict=True))

    def class_rates(self) -> list[list[float | None]]:
        """(classes, blocks) share of each class's images for which each block ran, in part or in full."""
        totals = [[0] * len(self.options) for _ in self.classes]
        counts = [0] * len(self.classes)
        for label, decisions in zip(self.labels, self.decisions, strict=True):
            counts[label] += 1
            for block, decision in enumerate(decisions):
                totals[label][block] += decision > 0
        return [[t / n if n else None for t in row] for row, n in zip(totals, counts, strict=True)]


def run_test_images(run: Run, load_data: LoadData) -> Tested:
    """Run every test image through the run's network; `UserError` with the reason when that cannot be done here."""
    if not run.finished:
        raise UserError("the run is not finished, and the test set is read only after the last epoch")
    from spnet.data.match import matched
    from spnet.inference.evaluate import collect
    from spnet.runs.facts import home_of_data
    from spnet.runs.open import load

    if not (run.folder / "model.safetensors").is_file():
        raise UserError(f"{run.folder / 'model.safetensors'} does not exist")
    try:
        net = load(run.folder)
    except KeyError as error:
        raise UserError(f"config.json lacks {error}") from error
    dataset = load_data(home_of_data(run.config.data, run.facts))
    dataset = matched(dataset, net.classes, net.input_shape, num_classes=net.num_classes)
    results = collect(net, dataset.test)
    shares = (results["macs"].double() / net.static_macs).tolist()
    return Tested(
        images=dataset.test,
        labels=dataset.test.labels.tolist(),
        predicted=results["predicted"].tolist(),
        confidence=results["confidence"].tolist(),
        shares=shares,
        decisions=results["decisions"].tolist(),
        options=net.options,
        gated=net.gated,
        stage_lengths=net.backbone.stages.lengths,
        classes=dataset.classes,
        note=_difference(run, 100.0 * results["correct"].double().mean().item(), sum(shares) / len(shares)),
    )


def _difference(run: Run, accuracy: float, cost: float) -> str:
    told, told_cost = finite(run.final.accuracy), finite(run.final.cost_ratio)
    if told is None or told_cost is None or (abs(told - accuracy) <= 0.2 and abs(told_cost - cost) <= 0.005):
        return ""
    return (
        f"Run again for this page, the network reached {accuracy:.2f} % at {percent_of(cost)} of static; result.json "
        f"has {told:.2f} % at {percent_of(told_cost)}: other weights, other data or another precision."
    )


def load_if_here(spec: str) -> "Dataset":
    """The data set, if it is on this machine. Never downloads: a page is no reason to fetch anything."""
    from spnet import data
    from spnet.data import locate

    parsed = data.parse(spec)
    fetched = ("cifar10", "cifar100")
    if parsed.name in fetched and parsed.path is None and locate.find(parsed.name, fetched) is None:
        raise UserError(f"{parsed.name} is not on this machine (set SPNET_DATA to where it lies)")
    return data.load(spec)
