"""How often values fall into bins of one width; the count axis begins at zero."""

from collections.abc import Sequence

from spnet.report.charts.frame import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, drawing, text, x_axis, y_axis
from spnet.report.charts.scale import Scale, fitted
from spnet.report.markup import Markup, element


def histogram(values: Sequence[float], *, x_title: str, y_title: str, bins: int = 24, unit: str = "") -> Markup:
    """Bars from the smallest to the largest value, the mean as a vertical line. Equal values are one bar."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-9:
        bins, low, high = 1, low - 0.5, high + 0.5
    step = (high - low) / bins
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / step))] += 1
    right, bottom = WIDTH - 16, HEIGHT - BOTTOM
    across = Scale(low, high, LEFT, right)
    y = fitted([*counts, 1], bottom, TOP, bounds=(0.0, None))
    bars = []
    for i, count in enumerate(counts):
        if count:
            title = element("title", f"{low + i * step:.1f} to {low + (i + 1) * step:.1f}{unit}: {count}")
            x, top = across(low + i * step) + 0.5, y(count)
            wide = max(1.0, (right - LEFT) / bins - 1)
            bars.append(element("rect", title, x=x, y=top, width=wide, height=bottom - top))
    mean = sum(values) / len(values) if values else low
    place = across(mean)
    anchor, shift = ("end", -4) if place > right - 70 else (None, 4)
    return drawing(
        f"{y_title} by {x_title}: from {low:.1f} to {high:.1f}{unit}, mean {mean:.1f}{unit}",
        y_axis(y, LEFT, right, y_title),
        x_axis([(across(v), label) for v, label in across.ticks(6)], LEFT, right, bottom, x_title),
        element("g", *bars, class_="bars"),
        element("line", x1=place, x2=place, y1=TOP - 6, y2=bottom, class_="level"),
        text(place + shift, TOP, f"mean {mean:.1f}{unit}", anchor=anchor, kind="halo"),
    )
