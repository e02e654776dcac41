"""A section of a table page: a title, rows of runs, and which columns say what they have to say."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spnet.experiments.table import Row, beaten_by_static, made_differently, missed, table
from spnet.training.config import RunConfig

Cells = list[list[str]]


@dataclass(frozen=True)
class Section:
    """Attributes:
    baseline: name of the row that differences are taken to and whose full network is 100 %.
    cells: (rows, results, baseline) -> head and rows; the common columns when left out.
    notes: sentences below the table.
    """

    title: str
    rows: list[Row]
    baseline: str | None = None
    cells: Callable[[list[Row], Path, str | None], Cells] = table
    notes: tuple[str, ...] = ()

    @property
    def runs(self) -> list[RunConfig]:
        return [run for row in self.rows for run in row.runs]

    def render(self, results: Path) -> tuple[Cells, list[str]]:
        """The cells, and below them the notes, what is missing, every dynamic row that a static network beats, and
        which rows other machines made."""
        said = [*self.notes, *missed(self.rows, results), *beaten_by_static(self.rows, results)]
        said += made_differently(self.rows, results)
        return self.cells(self.rows, results, self.baseline), said
