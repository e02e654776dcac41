"""Cascades of two trained networks at the budgets of a plan: evaluated once, kept as records beside those of the runs.

    results/cascades/<hash of the first>-<hash of the second>.json

Calibrated on training images without labels, as a user would; the test images are read once a budget, to count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spnet.errors import UserError
from spnet.files import write_json
from spnet.jobs.runner import NETWORKS, finished
from spnet.reproduction.kept import read_kept
from spnet.reproduction.plan import Plan, student_passes
from spnet.reproduction.statistics import summary
from spnet.reproduction.table import Cells
from spnet.runs.config import RunConfig
from spnet.runs.forms import to_json
from spnet.runs.record import Environment, Evaluation

if TYPE_CHECKING:
    from spnet.inference.cascade import Cascade
    from spnet.inference.cascade.engine import CascadeEngine

FOLDER = "cascades"
HEAD = (
    "cascade", "n", "accuracy %", "asked %", "MMACs", "GFLOPs", "% of static", "first answers %", "rightly %",
    "passes of both",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A small network before a large one, of one seed."""

    name: str
    members: tuple[RunConfig, RunConfig]

    def file(self, results: Path) -> Path:
        return results / FOLDER / f"{'-'.join(run.hash for run in self.members)}.json"

    def ready(self, results: Path) -> bool:
        """Whether both members are trained and their weights kept."""
        return all(finished(run, results, network=True) for run in self.members)

    def record(self, results: Path) -> "CascadeRecord | None":
        """Raises:
        UserError: the record is damaged.
        """
        return read_kept(CascadeRecord, self.file(results))


@dataclass(frozen=True)
class CascadeRecord:
    """asked: the test figures at each budget, a share of the cost of the plan's full static network (`macs_full`)."""

    label: str = ""
    macs_full: int = 0
    calibration_images: int = 0
    asked: tuple[Evaluation, ...] = ()
    made_with: Environment = field(default_factory=Environment)

    def at(self, budget: float) -> Evaluation | None:
        return next((figures for figures in self.asked if figures.budget == budget and figures.met), None)


def make(pairs: Sequence[Pair], plan: Plan, results: Path) -> None:
    """Evaluate every pair whose members are ready and that has no record yet."""
    for pair in pairs:
        if pair.ready(results) and pair.record(results) is None:
            write_json(pair.file(results), to_json(_evaluated(pair, plan, results)))


def _evaluated(pair: Pair, plan: Plan, results: Path) -> CascadeRecord:
    from spnet import data
    from spnet.inference.calibrate import spread
    from spnet.inference.cascade.evaluate import evaluate_cascade
    from spnet.training.finish import CALIBRATION_IMAGES, made_with

    dataset = data.load(pair.members[0].data)
    images = spread(dataset.train, CALIBRATION_IMAGES).images
    engine = opened(pair, results, "gathered")
    planner, static = engine.planner(images), engine.model.static_macs
    full = full_network_macs(plan, engine.model)
    asked = []
    for budget in plan.scale.budgets:
        try:
            reached = engine.meet(planner, budget * full / static)
        except UserError as error:
            asked.append(Evaluation(budget=budget, missed=str(error)))
            continue
        figures = evaluate_cascade(engine, dataset.test)
        asked.append(replace(figures, budget=budget, calibration_cost=reached * static / full))
    return CascadeRecord(pair.name, full, len(images), tuple(asked), made_with("fp32"))


def opened(pair: Pair, results: Path, executor: str) -> "CascadeEngine":
    """The engine of the pair's kept networks, on one thread; not calibrated."""
    from spnet.inference.cascade import Cascade
    from spnet.inference.cascade.engine import CascadeEngine
    from spnet.runs.open import load

    return CascadeEngine(Cascade([load(results / NETWORKS / run.hash) for run in pair.members]), executor, threads=1)


def full_network_macs(plan: Plan, like: "Cascade") -> int:
    """Multiply-adds of the plan's full static network on the cascade's images."""
    from spnet.build import create_model

    channels, size, _ = like.input_shape
    full = create_model(
        plan.scale.backbone, "static", num_classes=like.num_classes, in_channels=channels, image_size=size
    )
    return full.static_macs


def table(pairs: Sequence[Pair], plan: Plan, results: Path) -> Cells:
    """Head and one list of cells a name and budget; one without a record has n = 0 and no figures."""
    cells: Cells = [[*HEAD]]
    for budget in plan.scale.budgets:
        for name in dict.fromkeys(pair.name for pair in pairs):
            mine = [pair for pair in pairs if pair.name == name]
            found = [record for pair in mine if (record := pair.record(results))]
            figures = [at for record in found if (at := record.at(budget))]
            if found and not figures:
                continue  # a budget that the cascade cannot have, cheaper or dearer than any of its settings
            if not figures:
                cells.append([f"{name} at {budget}", "0", *[""] * (len(HEAD) - 2)])
                continue
            macs = sum(one.macs_mean for one in figures) / len(figures)
            first = [one.members[0] for one in figures]
            cells.append(
                [
                    f"{name} at {budget}",
                    str(len(figures)),
                    str(summary([one.accuracy for one in figures])),
                    f"{100 * budget:.0f}",
                    f"{macs / 1e6:.4g}",
                    f"{2e-9 * macs:.4g}",
                    f"{100 * macs / found[0].macs_full:.1f}",
                    f"{100 * sum(one.share for one in first) / len(first):.0f}",
                    f"{sum(one.accuracy for one in first) / len(first):.1f}",
                    f"{sum(student_passes(run) for run in mine[0].members)} x each image",
                ]
            )
    return cells
