"""A heat map of shares from 0 to 1: one hue, the more the darker (on a dark page the lighter), so it reads in grey too.

The cells are one small picture, about a byte a cell. The pointer tells each cell's value, or each row's where there
are many.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from spnet.report.figures import theme
from spnet.report.figures.inline import inline
from spnet.report.markup import Markup
from spnet.report.numbers import percent_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Grid = Sequence[Sequence[float | None]]
LEVELS = 40
HOVER_CELLS = 1000
TOP = 28.0


def heat_map(
    grid: Grid,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    row: str,
    column: str,
    numbered: tuple[int, int] | None = None,
    row_breaks: Sequence[int] = (),
    column_breaks: Sequence[int] = (),
    written: bool = False,
    hover_cells: int = HOVER_CELLS,
) -> Markup:
    """Args:
    grid: (rows, columns) shares in 0..1; None is a cross.
    rows, columns: the name of each row and column; row, column: what these are names of, such as block and epoch.
    numbered: (first, step) where columns stand for numbers, `step` of them each, and get round ticks; None names
        every column that there is room for.
    row_breaks, column_breaks: a line before these rows and columns (stages).
    written: write the percentage in each cell where there is room.
    hover_cells: with more cells than this the pointer tells rows.
    """
    left = 12 + min(110.0, max((theme.width_of(name) for name in (row, *rows)), default=0.0))
    down, across = max(1, len(rows)), max(1, len(columns))
    high, wide = max(4.0, min(20.0, 300 / down)), (theme.WIDTH - theme.RIGHT - left) / across
    first, step = numbered or (0, 1)
    start = first - 0.5
    with theme.styled(**theme.IN_PAGE, axes__grid=False):
        axes = theme.chart(column, row, left=left, top=TOP, height=TOP + theme.BOTTOM + high * down)
        axes.set(xlim=(start, start + step * across), ylim=(down - 0.5, -0.5), yticks=[])
        axes.spines[:].set_visible(True)
        if grid and columns:
            _shares(axes, grid)
        for at in row_breaks:
            axes.axhline(at - 0.5, color=theme.INKS["paper"], linewidth=3)
        for at in column_breaks:
            axes.axvline(start + step * at, color=theme.INKS["paper"], linewidth=3)
        crosses: tuple[list[float], list[float]] = [], []
        for r, c, value in ((r, c, value) for r, cells in enumerate(grid) for c, value in enumerate(cells)):
            if value is None:
                crosses[0].extend((start + step * c, start + step * (c + 1), math.nan))
                crosses[1].extend((r - 0.5, r + 0.5, math.nan))
            elif written and wide >= 24 and high >= 12:
                at, hue = TOP + (r + 0.5) * high + 4, theme.INKS["on" if value > 0.5 else "ink"]
                theme.write(axes, left + (c + 0.5) * wide, at, f"{100 * value:.0f}", ha="center", color=hue, size=11)
        axes.plot(*crosses, color=theme.INKS["line"], linewidth=1)
        for r in range(0, len(rows), math.ceil(13 / high)):
            shown = theme.shortened(rows[r], left - 11)
            look = {"ha": "right", "color": theme.INKS["soft"], "title": "" if shown == rows[r] else rows[r]}
            theme.write(axes, left - 5, TOP + (r + 0.5) * high + 4, shown, **look)
        if numbered:
            axes.locator_params(axis="x", integer=True)
        else:
            named = range(0, len(columns), math.ceil(22 / wide))
            axes.set_xticks(named, [theme.plain(columns[c]) for c in named])
        _key(axes)
        summary = f"Execution rate by {row} and {column}: a heat map of {len(rows)} by {len(columns)} shares"
        names = [f"{row} {name}" for name in rows], [f"{column} {name}" for name in columns]
        whole = len(rows) * len(columns) > hover_cells
        return inline(
            axes,
            summary,
            (
                (left + x * wide, TOP + y * high, w * wide, high, words)
                for x, y, w, words in _hovers(grid, *names, whole)
            ),
        )


def _shares(axes: "Axes", grid: Grid) -> None:
    """The picture: one hue, a share is how opaque it is; as many levels as one can tell apart."""
    import numpy as np
    from matplotlib.colors import to_rgb

    shares = np.nan_to_num(np.array(grid, dtype=float)).clip(0, 1)
    pixels = np.empty((*shares.shape, 4))
    pixels[..., :3] = to_rgb(theme.INKS["heat"])
    pixels[..., 3] = np.round(LEVELS * shares) / LEVELS
    axes.imshow(pixels, aspect="auto", interpolation="none", extent=(*axes.get_xlim(), *axes.get_ylim()))


def _key(axes: "Axes") -> None:
    """The scale: five steps from no image to every image."""
    height, right, soft = axes.figure.bbox.height, theme.WIDTH - theme.RIGHT, theme.INKS["soft"]
    size = (90 / theme.WIDTH, 10 / height)
    key = axes.figure.add_axes(((right - 134) / theme.WIDTH, 1 - 14 / height, *size))  # type: ignore[union-attr]
    key.set(xticks=[], yticks=[])
    key.spines[:].set_visible(True)
    _shares(key, [[0, 0.25, 0.5, 0.75, 1]])
    theme.write(axes, right - 138, 13, "0 %", ha="right", color=soft)
    theme.write(axes, right - 40, 13, "100 %", color=soft)


def _hovers(
    grid: Grid, rows: Sequence[str], columns: Sequence[str], whole: bool
) -> Iterator[tuple[int, int, int, str]]:
    """(column, row, columns wide, words) of what answers to the pointer: cells, or `whole` rows."""
    for r, cells in enumerate(grid):
        known = [v for v in cells if v is not None]
        ends = f"{percent_of(min(known))} to {percent_of(max(known))}" if known else "no value"
        if whole:
            yield 0, r, len(columns), f"{rows[r]}: {ends}"
        else:
            yield from ((c, r, 1, f"{rows[r]}, {columns[c]}: {percent_of(v)}") for c, v in enumerate(cells))
