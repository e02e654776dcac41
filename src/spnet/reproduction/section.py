"""A section of a table page: a title, rows of runs, and which columns say what they have to say."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spnet.reproduction.lines import Line, Row, collect
from spnet.reproduction.remarks import beaten_by_static, made_differently, missed
from spnet.reproduction.table import Cells, table
from spnet.runs.config import RunConfig


@dataclass(frozen=True)
class Section:
    """Attributes:
    baseline: name of the row that differences are taken to and whose full network is 100 %.
    cells: (lines, baseline) -> head and rows; the common columns when left out.
    notes: sentences below the table.
    """

    title: str
    rows: list[Row]
    baseline: str | None = None
    cells: Callable[[list[Line], str | None], Cells] = table
    notes: tuple[str, ...] = ()

    @property
    def runs(self) -> list[RunConfig]:
        return [run for row in self.rows for run in row.runs]

    def render(self, results: Path) -> tuple[Cells, list[str]]:
        """The cells, and below them the notes, what is missing, every dynamic row that a static network beats, and
        which rows other machines made."""
        lines = collect(self.rows, results)
        said = [*self.notes, *missed(lines), *beaten_by_static(lines), *made_differently(lines)]
        return self.cells(lines, self.baseline), said
