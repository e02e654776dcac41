"""Points in a plane, each with its name beside it where there is room, some joined by a line; bars of a histogram."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from spnet.report.figures import theme
from spnet.report.figures.inline import inline
from spnet.report.markup import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 300.0
BESIDE = (
    *(("left", 9, 4), ("right", -9, 4), ("center", 0, -10), ("center", 0, 19)),
    *(("left", 7, -8), ("left", 7, 18), ("right", -7, -8), ("right", -7, 18)),
)
"""Where the name of a point may stand, the best place first: how it is aligned, and how far from the point."""
BINS = 24


@dataclass(frozen=True)
class Point:
    """x_spread, y_spread: half lengths of error bars. joined: what the line is that joins all points of the same
    text, in order of x. name: written beside the point; may be empty."""

    name: str
    x: float
    y: float
    title: str
    style: int = 0
    x_spread: float = 0.0
    y_spread: float = 0.0
    joined: str = ""
    hollow: bool = False


def scatter(points: Sequence[Point], *, x_title: str, y_title: str) -> Markup:
    with theme.styled(**theme.IN_PAGE, axes__xmargin=0.06):
        axes = theme.chart(x_title, y_title, height=HEIGHT)
        for joined in dict.fromkeys(p.joined for p in points if p.joined):
            rungs = sorted((p for p in points if p.joined == joined), key=lambda p: p.x)
            hue = theme.INKS["soft"] if rungs[0].hollow else theme.colour(rungs[0].style)
            kind = theme.tag(f"ladder s{rungs[0].style}", joined)
            axes.plot([p.x for p in rungs], [p.y for p in rungs], color=hue, linewidth=1.3, zorder=1, gid=kind)
        for p in points:
            _point(axes, p)
        _names(axes, points)
        return inline(axes, f"{y_title} against {x_title}: " + "; ".join(p.title for p in points))


def sample(style: int, *, hollow: bool) -> Markup:
    """Colour, dashes and marker of a style, for a legend."""
    from matplotlib.figure import Figure

    with theme.styled():
        figure = Figure(figsize=(36 / 72, 16 / 72), dpi=72)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 36), ylim=(0, 16))
        axes.set_axis_off()
        axes.plot([2, 34], [8, 8], color=theme.colour(style), linestyle=theme.dash(style))
        _point(axes, Point("", 18, 8, "", style, hollow=hollow))
        return inline(axes, "")


def _point(axes: "Axes", p: Point) -> None:
    hue = theme.colour(p.style)
    drawn = axes.errorbar(
        [p.x], [p.y], xerr=p.x_spread or None, yerr=p.y_spread or None, fmt=theme.marker(p.style), color=hue,
        markerfacecolor=theme.INKS["paper"] if p.hollow else hue, markeredgewidth=1.8, markersize=8, elinewidth=1.8,
    )  # fmt: skip
    mark, _, bars = drawn.lines
    mark.set_gid(theme.tag(f"point s{p.style}", p.title))
    for bar in bars:
        bar.set_gid(theme.tag(f"point s{p.style}", p.title))


def _names(axes: "Axes", points: Sequence[Point]) -> None:
    """A name beside its point, where it covers nothing; else only pointer and legend tell it."""
    from matplotlib.transforms import Bbox

    places = [theme.place(axes, p.x, p.y) for p in points]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in places]
    lines = [Bbox.from_bounds(x - 2, y - 2, 4, 4) for x, y in _along(axes, points)]
    room = Bbox.from_extents(theme.LEFT, theme.TOP - 8, theme.WIDTH, HEIGHT - theme.BOTTOM)
    for p, (x, y) in zip(points, places, strict=True):
        if not p.name:
            continue
        wide = theme.width_of(p.name)
        found = []
        for anchor, dx, dy in BESIDE:
            left = x + dx - {"left": 0, "right": wide, "center": wide / 2}[anchor]
            box = Bbox.from_bounds(left, y + dy - 10, wide, 13)
            if room.contains(*box.min) and room.contains(*box.max) and not box.count_overlaps(taken):
                found.append((bool(box.count_overlaps(lines)), len(found), anchor, dx, dy, box))
        if found:  # rather over a line than nowhere: it has a halo
            _, _, anchor, dx, dy, box = min(found, key=lambda place: place[:2])
            taken.append(box)
            theme.write(axes, x + dx, y + dy, p.name, kind=f"halo s{p.style}", ha=anchor)


def _along(axes: "Axes", points: Sequence[Point]) -> list[tuple[float, float]]:
    """Places on the lines between points, near enough that no name fits between two."""
    found = []
    for joined in dict.fromkeys(p.joined for p in points if p.joined):
        ends = [
            theme.place(axes, p.x, p.y) for p in sorted((p for p in points if p.joined == joined), key=lambda p: p.x)
        ]
        for (x, y), (to_x, to_y) in pairwise(ends):
            steps = 1 + int(math.hypot(to_x - x, to_y - y) / 6)
            found += [(x + (to_x - x) * k / steps, y + (to_y - y) * k / steps) for k in range(steps + 1)]
    return found


def histogram(values: Sequence[float], *, x_title: str, y_title: str, unit: str = "") -> Markup:
    """Bars from the smallest to the largest value, the mean as a vertical line. Equal values are one bar."""
    import numpy as np

    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    mean = sum(values) / len(values) if values else low
    counts, edges = np.histogram(values, BINS if high - low > 1e-9 else 1)
    with theme.styled(**theme.IN_PAGE):
        axes = theme.chart(x_title, y_title)
        axes.locator_params(axis="y", integer=True)
        for count, left, right in zip(counts, edges, edges[1:], strict=False):
            if count:
                title = f"{left:.1f} to {right:.1f}{unit}: {count}"
                wide = 0.94 * (right - left)
                axes.bar(left, count, wide, align="edge", color=theme.colour(0), gid=theme.tag("bar", title))
        axes.axvline(mean, color=theme.INKS["ink"], linewidth=1, linestyle=(0, (1, 3)))
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.08 * max([*counts, 1])))
        at = theme.place(axes, mean, 0)[0]
        anchor, shift = ("right", -4) if at > theme.WIDTH - 80 else ("left", 4)
        theme.write(axes, at + shift, theme.TOP, f"mean {mean:.1f}{unit}", kind="halo", ha=anchor)
        summary = (
            f"{y_title} by {x_title}: from {low:.1f} to {high:.1f}{unit}, mean {mean:.1f}{unit}, n = {len(values)}"
        )
        return inline(axes, summary)
