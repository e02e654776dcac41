"""What a row of metrics.jsonl and a result.json hold: one schema, written and read through the same classes."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spnet.errors import UserError
from spnet.files import read_json, write_json, write_text
from spnet.runs.forms import ALWAYS, Misfit, always, fill, to_json

NAN = math.nan
"""A figure that was not measured."""


@dataclass(frozen=True)
class Figures:
    """Abstract: what is read off a network that ran a set of images by the test rule.

    Attributes:
        n: images.
        class_accuracy: percent, mean over the classes of the share of a class that is right.
        macs_mean, macs_static: multiply-adds an image; of the static network, which runs every block.
        gflops_mean: 2e-9 of `macs_mean`.
        cost_ratio: `macs_mean` as a share of `macs_static`.
        execution_rate: mean share of the images for which a block with a choice ran; `..._per_block`: of every block.
        distinct_paths: how many different ones the images took.
        evolution_kl: KL divergence between the features of adjoining stages, in nats; NaN where the executor hands out
            no features.
        stage_accuracy: percent, of every stage, NaN for one without a classifier; of the last stage alone where no
            other has one.
        decision_entropy_per_block: nats.
    """

    n: int = 0
    class_accuracy: float = NAN
    macs_mean: float = NAN
    macs_static: int = 0
    gflops_mean: float = NAN
    cost_ratio: float = NAN
    execution_rate: float = NAN
    execution_rate_per_block: tuple[float, ...] = ()
    distinct_paths: int = 0
    decision_entropy_per_block: tuple[float, ...] = ()
    stage_accuracy: tuple[float, ...] = ()
    evolution_kl: float = NAN


@dataclass(frozen=True)
class MemberFigures:
    """A member of a cascade.

    Attributes:
        run: what it was called.
        confidence: an image that is surer of its class stays; NaN for the last member, which answers what is left.
        share: of the images, that it answered; `accuracy` on these, percent.
        accuracy_alone, cost_alone: with every image its own; cost as a share of the last member's static network.
    """

    run: str = ""
    confidence: float = always(NAN)
    decision_shift: float = always(NAN)
    share: float = always(NAN)
    accuracy: float = always(NAN)
    accuracy_alone: float = always(NAN)
    cost_alone: float = always(NAN)


@dataclass(frozen=True)
class Evaluation(Figures):
    """Figures on the test set, with the controls that show what the decisions win.

    Attributes:
        accuracy: percent; NaN where a budget was `missed`.
        accuracy_shuffled_paths: with every image on another image's path.
        accuracy_fixed_path: with every image on one path of about the same cost, `cost_ratio_fixed_path` of static.
        budget: share of the static cost the thresholds were calibrated to; NaN: not calibrated.
        calibration_cost: the cost reached on the images it was calibrated on.
        missed: why no threshold meets the budget; empty where it is met.
        members: of a cascade, which has no fixed path; empty for a network.

    Example:
        >>> figures = spnet.Run("runs/digits").result.final
        >>> figures.met, figures.n, figures.macs_mean == figures.cost_ratio * figures.macs_static
        (True, 40, True)
    """

    accuracy: float = NAN
    images_per_second: float = NAN
    accuracy_shuffled_paths: float = NAN
    accuracy_fixed_path: float = NAN
    cost_ratio_fixed_path: float = NAN
    budget: float = NAN
    calibration_cost: float = NAN
    missed: str = ""
    members: tuple[MemberFigures, ...] = ()

    @property
    def met(self) -> bool:
        """Whether there are figures."""
        return not math.isnan(self.accuracy)


@dataclass(frozen=True)
class EpochRow(Figures):
    """An epoch: how training went, and figures of the watched images after it.

    Attributes:
        losses: each term with its weight; `watched`: unweighted values; `gradient_share`: each term's part of the sum
            of the gradients' norms.
        train_accuracy, train_macs_mean: over the epoch's batches, augmentation and noise included.
        validation_accuracy: percent, of images held out of training; `probe_accuracy`: of training images.
        flips: share of the decisions that differ from the epoch before; NaN in the first.
        path_agreement: share of the decisions that stay the same when an image is augmented.
        always_run, always_skipped: blocks about which nothing is decided; None where there is no router.
        lr: of the last step. time: seconds since 1970. seconds: the epoch took. train_images: drawn.
    """

    epoch: int = 0
    phase: str = ""
    losses: Mapping[str, float] = field(default_factory=dict)
    watched: Mapping[str, float] = field(default_factory=dict)
    gradient_share: Mapping[str, float] = field(default_factory=dict)
    loss: float = NAN
    train_accuracy: float = NAN
    train_macs_mean: float = NAN
    validation_accuracy: float = NAN
    probe_accuracy: float = NAN
    flips: float = always(NAN)
    path_agreement: float = NAN
    always_run: tuple[int, ...] | None = None
    always_skipped: tuple[int, ...] | None = None
    lr: float = NAN
    time: float = NAN
    seconds: float = NAN
    train_images: int = 0
    student_passes: int = 0
    precision: str = ""

    @property
    def passes(self) -> int:
        """Images that were passed through the student, each as often as its steps did; rows of before do not say it:
        their methods passed every copy of an image once."""
        return self.student_passes or self.train_images

    @property
    def held_out(self) -> bool:
        """Whether the watched images were kept from training."""
        return not math.isnan(self.validation_accuracy)

    @property
    def accuracy(self) -> float:
        """Percent of the watched images, whichever they are."""
        return self.validation_accuracy if self.held_out else self.probe_accuracy

    @property
    def routed(self) -> bool:
        """Whether anything is decided."""
        return self.always_run is not None or not math.isnan(self.path_agreement)


@dataclass(frozen=True)
class EndOfTraining:
    """What the last epoch's row said, before any calibration; fields as of `EpochRow`."""

    train_accuracy: float = always(NAN)
    train_macs_mean: float = always(NAN)
    losses: Mapping[str, float] = field(default_factory=dict)
    watched: Mapping[str, float] = field(default_factory=dict)
    gradient_share: Mapping[str, float] = field(default_factory=dict)
    flips: float = always(NAN)
    path_agreement: float = always(NAN)
    evolution_kl: float = always(NAN)
    cost_ratio: float = always(NAN)
    distinct_paths: int = always(0)
    always_run: tuple[int, ...] | None = always(None)
    always_skipped: tuple[int, ...] | None = always(None)

    @classmethod
    def of(cls, row: EpochRow) -> "EndOfTraining":
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Environment:
    """What a figure was made with."""

    spnet: str = always("")
    commit: str = always("")
    torch: str = always("")
    python: str = always("")
    hardware: str = always("")
    threads: int = always(0)
    precision: str = always("")


@dataclass(frozen=True)
class Start:
    """The run whose weights were the start (`--init`): the name of its folder, the hash of its config; or a file's."""

    name: str = ""
    hash: str = ""


@dataclass(frozen=True)
class BestEpoch:
    """By validation; no part of any figure."""

    epoch: int = 0
    validation_accuracy: float = NAN


@dataclass(frozen=True)
class WrittenConfig:
    """The config as the record has it, every setting with its value; `RunConfig.from_json` reads it."""

    method: str = always("")
    wrapper: str = always("")
    backbone: str = always("")
    data: str = always("")
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Curves:
    """Figures of every epoch, in order."""

    phase: tuple[str, ...] = ()
    evolution_kl: tuple[float, ...] = ()
    flips: tuple[float, ...] = ()
    path_agreement: tuple[float, ...] = ()
    cost_ratio: tuple[float, ...] = ()
    validation_accuracy: tuple[float, ...] = ()
    probe_accuracy: tuple[float, ...] = ()
    train_accuracy: tuple[float, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[EpochRow]) -> "Curves":
        """Of a run's log, rounded; what no epoch measured is left out."""
        figures = {name: tuple(round(getattr(row, name), 5) for row in rows) for name in _NUMBERS}
        measured = {name: values for name, values in figures.items() if not all(map(math.isnan, values))}
        return cls(tuple(row.phase for row in rows), **measured)


_NUMBERS = tuple(name for name in Curves.__dataclass_fields__ if name != "phase")


@dataclass(frozen=True)
class RunResult:
    """The record of a finished run: result.json, and with its `curves` results/<hash>.json.

    Attributes:
        last: test figures as trained; `calibrated`, `reestimated`: at the run's budget, without and with batch-norm
            statistics estimated anew; `final`: those of the network in the folder.
        budgets: at the further budgets; None where nothing is decided.
        train_images: that were drawn. student_passes: passed through the student (`passes`).
    """

    hash: str = ""
    label: str = ""
    config: WrittenConfig = field(default_factory=WrittenConfig)
    last: Evaluation = field(default_factory=Evaluation)
    budgets: tuple[Evaluation, ...] | None = None
    calibrated: Evaluation | None = None
    reestimated: Evaluation | None = None
    final: Evaluation = field(default_factory=Evaluation)
    best_epoch: BestEpoch | None = None
    end_of_training: EndOfTraining = field(default_factory=EndOfTraining)
    train_seconds: float = NAN
    train_images: int = 0
    student_passes: int = 0
    made_with: Environment = field(default_factory=Environment)
    started_from: Start | None = field(default=None, metadata=ALWAYS)
    curves: Curves | None = None

    @property
    def routed(self) -> bool:
        """Whether anything is decided."""
        return self.budgets is not None

    @property
    def passes(self) -> int | None:
        """Images that the training passed through the student, each as often as its steps did: rows of a table are
        compared at equal passes. None where the record says nothing; records of before say it in `train_images`."""
        return self.student_passes or self.train_images or None

    @property
    def asked(self) -> tuple[Evaluation, ...]:
        """At every budget it was calibrated to, the run's own last; some may be missed."""
        return (*(self.budgets or ()), *([self.calibrated] if self.calibrated else []))


def read_result(path: Path) -> RunResult:
    """A result.json or record; `UserError` when it is missing, no JSON, or holds values of the wrong kind."""
    return result_from(read_json(path), path)


def result_from(record: Any, path: Path) -> RunResult:
    """`path` is the file that `record` was read from."""
    try:
        return fill(RunResult, record)
    except Misfit as error:
        wrong = error.name or "config"
        raise UserError(
            f"{path} is damaged: '{wrong}' is of the wrong kind. Restore it or start the run anew."
        ) from error


def write_result(path: Path, result: RunResult) -> None:
    write_json(path, to_json(result))


def read_metrics(folder: Path) -> list[EpochRow]:
    """Rows of metrics.jsonl; a last line cut off by a kill is dropped. `UserError` for values of the wrong kind."""
    path = folder / "metrics.jsonl"
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else [], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        try:
            if not isinstance(row, dict) or row.get("epoch", number) != number:  # a row an epoch, in order
                raise Misfit("epoch")
            rows.append(fill(EpochRow, row))
        except Misfit as error:
            raise UserError(
                f"{path}, line {number}: '{error.name}' is of the wrong kind. Restore the file or delete it."
            ) from error
    return rows


def write_metrics(folder: Path, rows: Sequence[EpochRow]) -> None:
    lines = (json.dumps(to_json(row), allow_nan=False) + "\n" for row in rows)
    write_text(folder / "metrics.jsonl", "".join(lines))
