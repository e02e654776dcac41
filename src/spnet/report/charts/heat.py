"""A heat map of shares from 0 to 1: one hue, the more the darker (on a dark page the lighter), so it reads in grey too.

Cells of one level are one path: about seven bytes a cell. The pointer tells each cell's value, or each row's where
there are many.
"""

import math
from collections.abc import Sequence

from spnet.report.charts.frame import WIDTH, drawing, shortened, text, width_of
from spnet.report.markup import Markup, element, join, short
from spnet.report.numbers import percent_of

Grid = Sequence[Sequence[float | None]]
LEVELS = 40
HOVER_CELLS = 1000
TOP = 36.0


def heat_map(
    grid: Grid,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    row: str,
    column: str,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    row_breaks: Sequence[int] = (),
    column_breaks: Sequence[int] = (),
    written: bool = False,
    hover_cells: int = HOVER_CELLS,
) -> Markup:
    """Args:
    grid: (rows, columns) shares in 0..1; None is a cross.
    rows, columns: the name of each row and column; row, column: what these are names of, such as block and epoch.
    x_ticks: (column, label); None names every column that there is room for.
    row_breaks, column_breaks: a line before these rows and columns (stages).
    written: write the percentage in each cell where there is room.
    hover_cells: with more cells than this the pointer tells rows.
    """
    label_width = min(110.0, max((width_of(name) for name in (row, *rows)), default=0.0))
    left, right = 12 + label_width, WIDTH - 10
    high = max(4.0, min(20.0, 300 / max(1, len(rows))))
    wide = (right - left) / max(1, len(columns))
    bottom = TOP + high * len(rows)
    place = f"translate({short(left)} {TOP:g}) scale({wide:.4f} {high:.4f})"
    if x_ticks is None:
        every = max(1, -(-len(columns) * 22 // int(right - left)))
        x_ticks = [(i, name) for i, name in enumerate(columns) if i % every == 0]
    names = [(i, name) for i, name in enumerate(rows) if i % max(1, math.ceil(13 / high)) == 0]
    return drawing(
        f"Execution rate by {row} and {column}: a heat map of {len(rows)} by {len(columns)} shares",
        _key(right),
        text(left - 5, TOP - 6, row, anchor="end", kind="axis"),
        element("g", *_cells(grid), transform=f"{place} translate(0 .5)", class_="cells"),
        _crosses(grid, left, wide, high),
        _numbers(grid, left, wide, high) if written and wide >= 24 and high >= 12 else None,
        *(_break(left, right, TOP + i * high, TOP + i * high) for i in row_breaks),
        *(_break(left + i * wide, left + i * wide, TOP, bottom) for i in column_breaks),
        element("rect", x=left, y=TOP, width=right - left, height=bottom - TOP, class_="edge"),
        *(_row_name(n, left - 5, TOP + (i + 0.5) * high + 4, label_width) for i, n in names),
        *(text(left + (i + 0.5) * wide, bottom + 14, name, anchor="middle") for i, name in x_ticks),
        text((left + right) / 2, bottom + 30, column, anchor="middle", kind="axis"),
        element(
            "g",
            *_hovers(grid, [f"{row} {name}" for name in rows], [f"{column} {name}" for name in columns], hover_cells),
            transform=place,
            class_="hover",
        ),
        height=bottom + 36,
    )


def _row_name(name: str, right: float, y: float, room: float) -> Markup:
    shown = shortened(name, room + 1)
    return text(right, y, shown, anchor="end", title="" if shown == name else name)


def _cells(grid: Grid) -> list[Markup]:
    """One path a level, of strokes one row thick; equal neighbours in a row are one stroke."""
    strokes: dict[int, list[str]] = {}
    for r, row in enumerate(grid):
        levels = [-1 if v is None else round(LEVELS * min(1.0, max(0.0, v))) for v in row]
        c = 0
        while c < len(levels):
            end = c
            while end < len(levels) and levels[end] == levels[c]:
                end += 1
            if levels[c] > 0:
                strokes.setdefault(levels[c], []).append(f"M{c} {r}h{end - c}")
            c = end
    return [
        element("path", d="".join(parts), stroke_opacity=f"{level / LEVELS:g}")
        for level, parts in sorted(strokes.items())
    ]


def _crosses(grid: Grid, left: float, wide: float, high: float) -> Markup | None:
    """A stroke through every cell that has no value."""
    strokes = [
        f"M{short(left + c * wide)} {short(TOP + r * high)}l{short(wide)} {short(high)}"
        for r, row in enumerate(grid)
        for c, value in enumerate(row)
        if value is None
    ]
    return element("path", d="".join(strokes), class_="grid") if strokes else None


def _numbers(grid: Grid, left: float, wide: float, high: float) -> Markup:
    parts = []
    for r, row in enumerate(grid):
        for c, value in enumerate(row):
            if value is not None:
                x, y = left + (c + 0.5) * wide, TOP + (r + 0.5) * high + 4
                kind = "on" if value > 0.5 else None
                parts.append(text(x, y, f"{100 * value:.0f}", anchor="middle", kind=kind))
    return element("g", *parts, class_="cell")


def _hovers(grid: Grid, rows: Sequence[str], columns: Sequence[str], most: int) -> list[Markup]:
    cells = len(rows) * len(columns)
    parts = []
    for r, row in enumerate(grid):
        if cells > most:
            known = [v for v in row if v is not None]
            ends = f"{percent_of(min(known))} to {percent_of(max(known))}" if known else "no value"
            parts.append(element("rect", element("title", f"{rows[r]}: {ends}"), y=r, width=len(columns), height=1))
            continue
        for c, value in enumerate(row):
            words = f"{rows[r]}, {columns[c]}: {percent_of(value)}"
            parts.append(element("rect", element("title", words), x=c, y=r, width=1, height=1))
    return parts


def _break(x1: float, x2: float, y1: float, y2: float) -> Markup:
    return element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_="break")


def _key(right: float) -> Markup:
    """The scale: five steps from no image to every image."""
    left = right - 164
    steps = [
        element("rect", x=left + 26 + i * 18, y=3, width=18, height=10, class_="heat", fill_opacity=f"{i / 4:g}")
        for i in range(5)
    ]
    frame = element("rect", x=left + 26, y=3, width=90, height=10, class_="edge")
    return join(text(left + 22, 12, "0 %", anchor="end"), *steps, frame, text(left + 120, 12, "100 %"))
