"""A run folder as the page sees it: whatever is there, and in words what is not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spnet.errors import UserError
from spnet.report.numbers import finite
from spnet.runs.config import RunConfig
from spnet.runs.facts import Facts
from spnet.runs.record import EndOfTraining, EpochRow, Evaluation, RunResult, read_metrics, result_from

Series = list[float | None]


@dataclass(frozen=True)
class Run:
    """Attributes:
    facts: what config.json says beside the settings.
    rows: one an epoch; result: result.json, None for an unfinished run.
    missing: one sentence for each thing that is not there, and why.
    """

    folder: Path
    config: RunConfig
    facts: Facts
    rows: list[EpochRow]
    result: RunResult | None
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.result.label if self.result and self.result.label else self.config.label

    @property
    def data(self) -> str:
        """The data's name, without the path of a data set that is the same everywhere."""
        name, _, path = self.config.data.partition(":")
        return name if name in ("cifar10", "cifar100") else f"{name}:{Path(path).name}" if path else name

    @property
    def finished(self) -> bool:
        return self.result is not None

    @property
    def started_from(self) -> str:
        """Name of the run whose weights were the start (`--init`); empty for fresh weights."""
        return self.facts.started_from.name if self.facts.started_from else ""

    @property
    def final(self) -> Evaluation:
        """The test figures that count: after calibration where there was one; without figures if there are none."""
        return self.evaluation("final") or Evaluation()

    @property
    def at_end(self) -> EndOfTraining:
        """What the last epoch logged, from result.json where the log is gone."""
        if self.rows:
            return EndOfTraining.of(self.rows[-1])
        return self.result.end_of_training if self.result else EndOfTraining()

    @property
    def held_out(self) -> bool:
        """Whether the watched images were kept from training."""
        return bool(self.rows) and self.rows[-1].held_out

    @property
    def routed(self) -> bool:
        """Whether the network decides anything."""
        return any(row.routed for row in self.rows) if self.rows else self.config.routed

    @property
    def epochs(self) -> list[float]:
        return [float(row.epoch or place) for place, row in enumerate(self.rows, 1)]

    @property
    def seconds(self) -> float | None:
        """Of the training."""
        if self.result:
            return finite(self.result.train_seconds)
        return sum(finite(row.seconds) or 0.0 for row in self.rows) if self.rows else None

    def evaluation(self, name: str) -> Evaluation | None:
        """`last` (as trained), `calibrated`, `reestimated`, `final`; None if there is none or it missed its budget."""
        found = getattr(self.result, name, None)
        return found if found and found.met else None

    @property
    def budgets(self) -> list[Evaluation]:
        """Figures at further budgets, the missed ones left out."""
        return [figures for figures in (self.result and self.result.budgets) or () if figures.met]

    @property
    def missed(self) -> list[str]:
        """Why a budget was not met, one sentence each, the run's own first."""
        found = (self.result.calibrated, *(self.result.budgets or ())) if self.result else ()
        return [figures.missed for figures in found if figures and figures.missed]

    def series(self, figure: Callable[[EpochRow], float | None], scale: float = 1.0) -> Series:
        """A logged number, one value an epoch; None where missing or not finite."""
        values = [finite(figure(row)) for row in self.rows]
        return [None if value is None else scale * value for value in values]

    def names_in(self, group: Callable[[EpochRow], Mapping[str, float]]) -> list[str]:
        """Every name a group of the log (its losses, say) has in any epoch, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in group(row)))

    @property
    def block_rates(self) -> list[list[float | None]]:
        """(epochs, blocks) share of the watched images for which each block ran; None where it was not logged."""
        lists = [row.execution_rate_per_block for row in self.rows]
        blocks = max(map(len, lists), default=0)
        return [[finite(rate) for rate in rates] + [None] * (blocks - len(rates)) for rates in lists]

    def stage_lengths(self, blocks: int) -> tuple[int, ...]:
        """Blocks per stage; one stage if the backbone does not have this many blocks."""
        lengths = _stage_lengths(self.config.backbone, self.facts.input_shape)
        return lengths if sum(lengths) == blocks else (blocks,)


def read_run(folder: Path) -> Run:
    """Read a run folder; `UserError` when it is none, or holds values of the wrong kind. What is absent or cut off is
    named in `missing`."""
    from spnet.files import read_json
    from spnet.runs.folder import read_config

    config, facts = read_config(folder)
    rows = read_metrics(folder)
    missing = []
    result = None
    wanted = config.training.epochs
    if (folder / "result.json").is_file():
        try:
            record = read_json(folder / "result.json")
        except UserError as error:
            missing.append(f"No test figures: {error}")
        else:
            result = result_from(record, folder / "result.json")
    else:
        missing.append(
            f"No test figures: the run is not finished ({len(rows)} of {wanted} epochs, no result.json). "
            f"Continue it with: spnet train --resume {folder}"
        )
    if not rows:
        missing.append("No curves: metrics.jsonl is missing or has no finished epoch.")
    return Run(folder, config, facts, rows, result, tuple(missing))


@cache
def _stage_lengths(backbone: str, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
    from spnet.backbones import create_backbone
    from spnet.build import seeded

    with seeded(0):  # its weights are not wanted, nor may they cost the caller random numbers
        return create_backbone(backbone, num_classes=2, input_shape=input_shape).stages.lengths
