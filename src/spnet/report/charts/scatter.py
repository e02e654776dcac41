"""Points in a plane, each with its name beside it where there is room; some joined by a line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spnet.report.charts.frame import BOTTOM, LEFT, TOP, WIDTH, colour, drawing, text, width_of, x_axis, y_axis
from spnet.report.charts.scale import Scale, fitted
from spnet.report.markup import Markup, element, join, short

HEIGHT = 300.0
Box = tuple[float, float, float, float]


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
    right, bottom = WIDTH - 12, HEIGHT - BOTTOM
    x_ends = [v for p in points for v in (p.x - p.x_spread, p.x + p.x_spread)]
    y_ends = [v for p in points for v in (p.y - p.y_spread, p.y + p.y_spread)]
    across = fitted(x_ends, LEFT, right)
    y = fitted(y_ends, bottom, TOP)
    return drawing(
        f"{y_title} against {x_title}: " + "; ".join(p.title for p in points),
        y_axis(y, LEFT, right, y_title),
        x_axis([(across(v), label) for v, label in across.ticks(6)], LEFT, right, bottom, x_title),
        _lines(points, across, y),
        *(_point(p, across, y) for p in points),
        _labels(points, across, y, right, bottom),
        height=HEIGHT,
    )


def _lines(points: Sequence[Point], across: Scale, y: Scale) -> Markup:
    parts = []
    for joined in dict.fromkeys(p.joined for p in points if p.joined):
        rungs = sorted((p for p in points if p.joined == joined), key=lambda p: p.x)
        if len(rungs) > 1:
            d = "M" + "L".join(f"{short(across(p.x))} {short(y(p.y))}" for p in rungs)
            hue = "var(--soft)" if rungs[0].hollow else colour(rungs[0].style)
            kind = f"ladder s{rungs[0].style}"
            parts.append(element("path", element("title", joined), d=d, stroke=hue, class_=kind))
    return join(*parts)


def _point(p: Point, across: Scale, y: Scale) -> Markup:
    cx, cy = across(p.x), y(p.y)
    bars = []
    if p.x_spread:
        bars.append(element("line", x1=across(p.x - p.x_spread), x2=across(p.x + p.x_spread), y1=cy, y2=cy))
    if p.y_spread:
        bars.append(element("line", x1=cx, x2=cx, y1=y(p.y - p.y_spread), y2=y(p.y + p.y_spread)))
    fill = "var(--paper)" if p.hollow else colour(p.style)
    shape = element("path", d=SHAPES[p.style % len(SHAPES)](cx, cy), fill=fill)
    return element("g", element("title", p.title), *bars, shape, stroke=colour(p.style), class_=f"point s{p.style}")


def _polygon(*corners: tuple[float, float]) -> Callable[[float, float], str]:
    return lambda x, y: "M" + "L".join(f"{short(x + dx)} {short(y + dy)}" for dx, dy in corners) + "Z"


def _disc(x: float, y: float) -> str:
    return f"M{short(x - 4.5)} {short(y)}a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0"


SHAPES: tuple[Callable[[float, float], str], ...] = (
    _disc,
    _polygon((-4, -4), (4, -4), (4, 4), (-4, 4)),
    _polygon((0, -5.2), (5, 3.8), (-5, 3.8)),
    _polygon((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
    _polygon((0, 5.2), (5, -3.8), (-5, -3.8)),
)


def _labels(points: Sequence[Point], across: Scale, y: Scale, right: float, bottom: float) -> Markup:
    """A name right, left, above or below its point, where it covers nothing; else only pointer and legend tell it."""
    taken: list[Box] = [(across(p.x) - 6, y(p.y) - 6, across(p.x) + 6, y(p.y) + 6) for p in points]
    parts = []
    for p in points:
        if not p.name:
            continue
        cx, cy, wide = across(p.x), y(p.y), width_of(p.name)
        for anchor, dx, dy in ((None, 9, 4), ("end", -9, 4), ("middle", 0, -10), ("middle", 0, 19)):
            left = cx + dx - {None: 0, "end": wide, "middle": wide / 2}[anchor]
            box = (left, cy + dy - 10, left + wide, cy + dy + 3)
            inside = left >= LEFT and box[2] <= right + 10 and box[1] >= TOP - 8 and box[3] <= bottom
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                parts.append(text(cx + dx, cy + dy, p.name, anchor=anchor, kind=f"halo s{p.style}"))
                break
    return join(*parts)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
