"""Curves over epochs: direct labels at their ends, phases as vertical lines, every epoch's values under the pointer."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spnet.report.figures import theme
from spnet.report.figures.inline import Hover, inline
from spnet.report.markup import Markup
from spnet.report.numbers import significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = Sequence[float | None]
Bounds = tuple[float | None, float | None]
LABEL = 13.0
"""From the base of a label to that of the next."""


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
    log: a logarithmic y axis where all values are positive and differ by a factor of 30.
    level: a horizontal line and its name.
    labels: names and last values at the ends of the curves (else the page has a legend).
    hovers: at most so many places answer to the pointer.
    """
    known = [(line, [v for v in line.values if v is not None]) for line in lines]
    ends = [(line, found[-1], show(found[-1])) for line, found in known if found]
    tags = [(line.style, f"{line.name} {shown}".strip(), v) for line, v, shown in ends] if labels else []
    least = min((v for _, found in known for v in found), default=0.0)
    most = max((v for _, found in known for v in found), default=0.0)
    log = log and least > 0 and most / least >= 30
    right = min(150.0, 10 + max((theme.width_of(words) for _, words, _ in tags), default=0.0))
    with theme.styled(**theme.IN_PAGE):
        top = theme.TOP + (14 if marks else 0)
        axes = theme.chart(x_title, y_title + (" (logarithmic)" if log else ""), right=right, top=top)
        if len(x) > 1:
            axes.set_xlim(x[0], x[-1])
            axes.locator_params(axis="x", integer=True)
        else:
            axes.set_xticks(x)
        for line in lines:
            _curve(axes, x, line, bounds)
        if log:
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            bounds = 10.0 ** math.floor(math.log10(least)), 10.0 ** math.ceil(math.log10(most))
        if level:
            axes.axhline(level[0], color=theme.INKS["ink"], linewidth=1, linestyle=(0, (1, 3)))
        axes.set_ylim(*bounds)
        if level:
            at, up = theme.place(axes, axes.get_xlim()[0], level[0])
            theme.write(axes, at + 4, up - 4, level[1], kind="halo")
        _end_labels(axes, tags)
        summary = f"{y_title} over {x_title}: " + "; ".join(f"{line.name} ends at {shown}" for line, _, shown in ends)
        return inline(axes, summary, [*_marks(axes, marks), *_strips(axes, x, lines, show, x_title, hovers)])


def _curve(axes: "Axes", x: Sequence[float], line: Line, bounds: Bounds) -> None:
    """The curve, broken where a value is missing; dots where a value stands alone or epochs are few."""
    import numpy as np

    y, hue = np.array(line.values, dtype=float), theme.colour(line.style)
    gap = np.isnan(np.pad(y, 1, constant_values=np.nan))
    dots = ~gap[1:-1] & (gap[:-2] & gap[2:] | (len(y) <= 16))
    look = {"color": hue, "linestyle": theme.dash(line.style), "markersize": 5, "markeredgewidth": 0}
    axes.plot(x, y, marker="o", markevery=dots, gid=theme.tag(f"curve s{line.style}"), **look)
    if line.band:
        least, most = (end if end is not None else far for end, far in zip(bounds, (-np.inf, np.inf), strict=True))
        low, high = np.array(line.band, dtype=float).clip(least, most)
        axes.fill_between(x, low, high, color=hue, alpha=0.18, linewidth=0, gid=theme.tag(f"band s{line.style}"))


def _marks(axes: "Axes", marks: Sequence[Mark]) -> Iterator[Hover]:
    """Phases: a line where each begins, its name beside it, above the curves."""
    left, right = (theme.place(axes, end, 1)[0] for end in axes.get_xlim())
    starts = [max(left, theme.place(axes, mark.start - 0.5, 1)[0]) for mark in marks]
    for i, (mark, start, end) in enumerate(zip(marks, starts, [*starts, right][1:], strict=True)):
        if i:
            axes.axvline(mark.start - 0.5, ymax=1.08, color=theme.INKS["soft"], linewidth=1, linestyle=(0, (3, 2)))
        name = theme.shortened(mark.name, end - start - 4)
        theme.write(axes, start + (4 if i else 0), theme.TOP + 9, name, kind="soft")
        yield start, theme.TOP - 2, max(1.0, end - start), 14.0, f"phase {mark.name}"


def _end_labels(axes: "Axes", tags: Sequence[tuple[int, str, float]]) -> None:
    """Each label beside the end of its curve, pushed apart where they would overlap."""
    right = theme.place(axes, axes.get_xlim()[1], 1)[0]
    ordered = sorted((theme.place(axes, 1, value)[1] + 4, style, words) for style, words, value in tags)
    places: list[float] = []
    for wanted, _, _ in ordered:
        places.append(max([wanted, *(place + LABEL for place in places[-1:])]))
    limit = theme.HEIGHT - theme.BOTTOM + 4
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - LABEL
    for at, (_, style, words) in zip(places, ordered, strict=True):
        shown = theme.shortened(words, theme.WIDTH - right - 8)
        theme.write(axes, right + 6, at, shown, color=theme.colour(style), kind=f"s{style}")


def _strips(
    axes: "Axes", x: Sequence[float], lines: Sequence[Line], show: Callable[[float], str], x_title: str, most: int
) -> Iterator[Hover]:
    """An invisible strip an epoch that tells every curve's value there."""
    every = max(1, -(-len(x) // most))
    corners = zip(axes.get_xlim(), axes.get_ylim(), strict=True)
    (first, bottom), (last, top) = (theme.place(axes, *corner) for corner in corners)
    half = max(1.0, every * (last - first) / max(1, len(x) - 1) / 2)
    for i in range((len(x) - 1) % every, len(x), every):
        known = [f"{line.name} {show(v)}".strip() for line in lines if (v := line.values[i]) is not None]
        if known:
            at = theme.place(axes, x[i], 1)[0]
            left, right = max(first - 4, at - half), min(last + 4, at + half)
            yield left, top, right - left, bottom - top, f"{x_title} {x[i]:g}\n" + "\n".join(known)
