"""Curves over epochs: direct labels at their ends, phases as vertical lines, every epoch's values under the pointer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spnet.report.charts.frame import (
    BOTTOM,
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    colour,
    dash,
    drawing,
    ink,
    polyline,
    shortened,
    text,
    width_of,
    x_axis,
    y_axis,
)
from spnet.report.charts.scale import Bounds, Scale, fitted, logarithmic, whole_ticks
from spnet.report.markup import Markup, element, join
from spnet.report.numbers import significant

Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """One curve. values: one per place on the x axis, None is a gap. band: (lower, upper) values around it."""

    name: str
    values: Values
    style: int = 0
    band: tuple[Values, Values] | None = None


@dataclass(frozen=True)
class Mark:
    """A stretch that begins at `start` on the x axis, such as a phase."""

    start: float
    name: str


def line_chart(
    x: Sequence[float],
    lines: Sequence[Line],
    *,
    y_title: str,
    x_title: str = "epoch",
    show: Callable[[float], str] = significant,
    bounds: Bounds = (None, None),
    log: bool = False,
    marks: Sequence[Mark] = (),
    level: tuple[float, str] | None = None,
    labels: bool = True,
    hovers: int = 120,
) -> Markup:
    """Args:
    x: whole numbers, ascending.
    show: how a value is written.
    bounds: ends of the y axis; None fits the values.
    log: a logarithmic y axis where all values are positive and differ enough.
    level: a horizontal line and its name.
    labels: names and last values at the ends of the curves (else the page has a legend).
    hovers: at most so many places answer to the pointer.
    """
    ends = [(line, _last(line.values)) for line in lines]
    tags = [(line.style, f"{line.name} {show(end[1])}".strip(), end[1]) for line, end in ends if end and labels]
    right = WIDTH - min(150.0, 10 + max((width_of(tag) for _, tag, _ in tags), default=0.0))
    top = TOP + (14 if marks else 0)
    bottom = HEIGHT - BOTTOM
    everything = [v for line in lines for values in (line.values, *(line.band or ())) for v in values]
    if level:
        everything.append(level[0])
    y = (logarithmic(everything, bottom, top) if log else None) or fitted(everything, bottom, top, bounds=bounds)
    first, last = (min(x), max(x)) if x else (1, 1)
    across = Scale(first, last, LEFT, right) if last > first else Scale(first - 1, last + 1, LEFT, right)
    summary = f"{y_title} over {x_title}: " + "; ".join(f"{line.name} ends at {show(e[1])}" for line, e in ends if e)
    return drawing(
        summary,
        y_axis(y, LEFT, right, y_title + (" (logarithmic)" if y.log else "")),
        x_axis([(across(v), str(v)) for v in whole_ticks(int(first), int(last))], LEFT, right, bottom, x_title),
        _marks(marks, across, top, bottom, right),
        _level(level, y, right) if level else None,
        *(_band(line, x, across, y) for line in lines),
        *(_curve(line, x, across, y) for line in lines),
        _end_labels(tags, y, right, top, bottom),
        _hovers(x, lines, across, show, x_title, (top, bottom), hovers),
    )


def _last(values: Values) -> tuple[int, float] | None:
    return next(((i, v) for i in range(len(values) - 1, -1, -1) if (v := values[i]) is not None), None)


def _curve(line: Line, x: Sequence[float], across: Scale, y: Scale) -> Markup:
    """The curve, broken where a value is missing; dots where a value stands alone or epochs are few."""
    places = [None if v is None else (across(x[i]), y(v)) for i, v in enumerate(line.values)]
    hue, dashes = colour(line.style), dash(line.style)
    dots = []
    for i, place in enumerate(places):
        alone = not (i > 0 and places[i - 1]) and not (i + 1 < len(places) and places[i + 1])
        if place and (alone or len(x) <= 16):
            dots.append(element("circle", cx=place[0], cy=place[1], r=2.5, fill=hue))
    stroke = element("path", d=polyline(places), stroke=hue, stroke_dasharray=dashes, class_="curve")
    return element("g", stroke, *dots, class_=f"s{line.style}")


def _band(line: Line, x: Sequence[float], across: Scale, y: Scale) -> Markup | None:
    if line.band is None:
        return None
    pairs = enumerate(zip(*line.band, strict=True))
    edges = [(i, lo, hi) for i, (lo, hi) in pairs if lo is not None and hi is not None]
    if len(edges) < 2:
        return None
    there = [(across(x[i]), y(min(hi, y.high))) for i, _, hi in edges]
    back = [(across(x[i]), y(max(lo, y.low))) for i, lo, _ in reversed(edges)]
    return element("path", d=polyline(there + back) + "z", fill=colour(line.style), class_=f"band s{line.style}")


def _marks(marks: Sequence[Mark], across: Scale, top: float, bottom: float, right: float) -> Markup:
    """Phases: a line where each begins, its name beside it, above the curves."""
    places = [max(LEFT, across(mark.start - 0.5)) for mark in marks]
    parts = []
    for i, mark in enumerate(marks):
        following = places[i + 1] if i + 1 < len(places) else right
        name = shortened(mark.name, following - places[i] - 4)
        if i:
            parts.append(element("line", x1=places[i], x2=places[i], y1=top - 14, y2=bottom, class_="phase"))
        parts.append(text(places[i] + (4 if i else 0), top - 5, name, kind="soft", title=f"phase {mark.name}"))
    return join(*parts)


def _level(level: tuple[float, str], y: Scale, right: float) -> Markup:
    place = y(level[0])
    line = element("line", x1=LEFT, x2=right, y1=place, y2=place, class_="level")
    return join(line, text(LEFT + 4, place - 4, level[1], kind="halo"))


def _end_labels(tags: list[tuple[int, str, float]], y: Scale, right: float, top: float, bottom: float) -> Markup:
    """Each label beside the end of its curve, pushed apart where they would overlap."""
    ordered = sorted(tags, key=lambda tag: y(tag[2]))
    places = [y(value) + 4 for _, _, value in ordered]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + 13)
    limit = bottom + 4
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], limit)
        limit = places[i] - 13
    parts = []
    for (style, words, _), place in zip(ordered, places, strict=True):
        shown = shortened(words, WIDTH - right - 8)
        parts.append(element("text", shown, x=right + 6, y=max(place, top), style=ink(style), class_=f"s{style}"))
    return join(*parts)


def _hovers(
    x: Sequence[float],
    lines: Sequence[Line],
    across: Scale,
    show: Callable[[float], str],
    x_title: str,
    span: tuple[float, float],
    most: int,
) -> Markup:
    """An invisible strip an epoch that tells every curve's value there."""
    every = max(1, -(-len(x) // most))
    parts = []
    for i in range((len(x) - 1) % every, len(x), every):
        known = [f"{line.name} {show(v)}".strip() for line in lines if (v := line.values[i]) is not None]
        if not known:
            continue
        half = max(1.0, every * (across.end - across.start) / max(1, len(x) - 1) / 2) if len(x) > 1 else 20.0
        left, right = max(across.start - 4, across(x[i]) - half), min(across.end + 4, across(x[i]) + half)
        title = element("title", f"{x_title} {x[i]:g}\n" + "\n".join(known))
        strip = element("rect", title, x=left, y=span[0], width=right - left, height=span[1] - span[0])
        parts.append(strip)
    return element("g", *parts, class_="hover")
