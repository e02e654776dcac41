"""A run folder as the page sees it: whatever is there, and in words what is not."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spnet.errors import UserError
from spnet.report.numbers import finite
from spnet.runs.config import RunConfig

Series = list[float | None]


@dataclass(frozen=True)
class Run:
    """Attributes:
    facts: config.json as it is, with classes and input shape.
    rows: one record an epoch; result: result.json, empty for an unfinished run.
    missing: one sentence for each thing that is not there, and why.
    """

    folder: Path
    config: RunConfig
    facts: dict[str, Any]
    rows: list[dict[str, Any]]
    result: dict[str, Any]
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return str(self.result.get("label") or self.config.label)

    @property
    def data(self) -> str:
        """The data's name, without the path of a data set that is the same everywhere."""
        name, _, path = self.config.data.partition(":")
        return name if name in ("cifar10", "cifar100") else f"{name}:{Path(path).name}" if path else name

    @property
    def finished(self) -> bool:
        return bool(self.result)

    @property
    def started_from(self) -> str:
        """Name of the run whose weights were the start (`--init`); empty for fresh weights."""
        return (self.facts.get("started_from") or {}).get("name", "")

    @property
    def final(self) -> dict[str, Any]:
        """The test figures that count: after calibration where there was one."""
        return self.evaluation("final")

    @property
    def last_row(self) -> dict[str, Any]:
        return self.rows[-1] if self.rows else {}

    @property
    def at_end(self) -> dict[str, Any]:
        """What the last epoch logged, from result.json where the log is gone."""
        return self.last_row or self.result.get("end_of_training") or {}

    @property
    def watched_name(self) -> str:
        """Which accuracy was logged: `validation_accuracy`, or `probe_accuracy` where nothing was held out."""
        return "validation_accuracy" if "validation_accuracy" in self.last_row else "probe_accuracy"

    @property
    def routed(self) -> bool:
        """Whether the network decides anything."""
        if self.rows:
            return any("path_agreement" in row for row in self.rows)
        return self.config.routed

    @property
    def epochs(self) -> list[float]:
        return [finite(row.get("epoch")) or place + 1.0 for place, row in enumerate(self.rows)]

    @property
    def seconds(self) -> float | None:
        if self.finished:
            return finite(self.result.get("train_seconds"))
        return sum(finite(row.get("seconds")) or 0.0 for row in self.rows) if self.rows else None

    def evaluation(self, name: str) -> dict[str, Any]:
        """`last` (as trained), `calibrated`, `reestimated`, `final`; empty if there is none or it missed its budget."""
        record = self.result.get(name)
        return record if isinstance(record, dict) and "accuracy" in record else {}

    @property
    def budgets(self) -> list[dict[str, Any]]:
        """Figures at further budgets (`budget`, and those of an evaluation), the missed ones left out."""
        records = self.result.get("budgets") or []
        return [record for record in records if isinstance(record, dict) and "accuracy" in record]

    @property
    def missed(self) -> list[str]:
        """Why a budget was not met, one sentence each."""
        records = [self.result.get("calibrated"), *(self.result.get("budgets") or [])]
        return [str(r["missed"]) for r in records if isinstance(r, dict) and r.get("missed")]

    def series(self, name: str, scale: float = 1.0) -> Series:
        """A logged number, one value an epoch (`group/name` for one of a group); None where missing or not finite."""
        group, _, key = name.partition("/") if "/" in name else ("", "", name)
        values = [finite((row.get(group) or {} if group else row).get(key)) for row in self.rows]
        return [None if value is None else scale * value for value in values]

    def names_in(self, group: str) -> list[str]:
        """Every name a group of the log (`losses`, `gradient_share`) has in any epoch, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.get(group) or {}))

    @property
    def block_rates(self) -> list[list[float | None]]:
        """(epochs, blocks) share of the watched images for which each block ran; epochs without it are left out."""
        lists = [row.get("execution_rate_per_block") or [] for row in self.rows]
        blocks = max(map(len, lists), default=0)
        return [[finite(rate) for rate in rates] + [None] * (blocks - len(rates)) for rates in lists]

    def stage_lengths(self, blocks: int) -> tuple[int, ...]:
        """Blocks per stage; one stage if the backbone does not have this many blocks."""
        shape = tuple(self.facts.get("input_shape") or (3, 32, 32))
        lengths = _stage_lengths(self.config.backbone, shape)
        return lengths if sum(lengths) == blocks else (blocks,)


def read_run(folder: Path) -> Run:
    """Read a run folder; `UserError` when it is none, or holds values of the wrong kind. What is absent or cut off is
    named in `missing`."""
    from spnet.files import read_json
    from spnet.runs.folder import check_result, read_config, read_metrics

    config, facts = read_config(folder)
    rows = [row for row in read_metrics(folder) if isinstance(row, dict)]
    missing = []
    result: dict[str, Any] = {}
    wanted = config.training.epochs
    if (folder / "result.json").is_file():
        try:
            record = read_json(folder / "result.json")
            result = record if isinstance(record, dict) else {}
        except UserError as error:
            missing.append(f"No test figures: {error}")
        check_result(result, folder / "result.json")
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
