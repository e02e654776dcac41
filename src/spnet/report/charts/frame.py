"""What charts share: the drawing and its size, axes, text, and how wide text is."""

from collections.abc import Iterable, Sequence

from spnet.report.charts.scale import Scale
from spnet.report.markup import Markup, element, join, short

WIDTH, HEIGHT = 400.0, 240.0
"""Units of a drawing: about pixels. Narrow, so that text stays readable at the width of a phone."""
LEFT, TOP, BOTTOM = 46.0, 20.0, 36.0
CHARACTER = 6.7
COLOURS = 8
DASHES = ("", "6 3", "2 3", "8 3 2 3", "14 4", "1 2", "4 2 1 2 1 2", "12 2 2 2 2 2")


def drawing(summary: str, *parts: str | None, height: float = HEIGHT) -> Markup:
    """The svg element; `summary` is what a screen reader says."""
    return element("svg", *parts, viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=summary)


def text(
    x: float, y: float, words: str, *, anchor: str | None = None, kind: str | None = None, title: str = ""
) -> Markup:
    """anchor: `middle` or `end`; kind: a CSS class. With a `title` the text explains itself under the pointer."""
    hover = element("title", title) if title else None
    return element("text", hover, words, x=x, y=y, text_anchor=anchor, class_=kind)


def width_of(words: str) -> float:
    """About how wide text of the charts' size is, in a wide font."""
    return CHARACTER * len(words)


def shortened(words: str, room: float) -> str:
    """The text if it fits, else its beginning with an ellipsis, else nothing."""
    if width_of(words) <= room:
        return words
    fits = int(room / CHARACTER) - 1
    return words[:fits].rstrip() + "…" if fits >= 2 else ""


def polyline(places: Sequence[tuple[float, float] | None]) -> str:
    """Path data through the places, lifted at None: steps in whole tenths of a unit, so short, and without drift."""
    parts: list[str] = []
    pen: tuple[int, int] | None = None
    for place in places:
        if place is None:
            pen = None
            continue
        here = round(10 * place[0]), round(10 * place[1])
        command, (dx, dy) = ("M", here) if pen is None else ("l", (here[0] - pen[0], here[1] - pen[1]))
        parts.append(f"{command}{_tenths(dx)} {_tenths(dy)}".replace(" -", "-"))
        pen = here
    return "".join(parts)


def _tenths(count: int) -> str:
    """`.7`, `-12.5`, `3`: a number of tenths in as few characters as it takes."""
    return short(count / 10).replace("0.", ".") if -10 < count < 10 else short(count / 10)


def colour(style: int) -> str:
    return f"var(--c{style % COLOURS})"


def ink(style: int) -> str:
    """A style attribute: text in the colour of its curve."""
    return f"fill:{colour(style)}"


def dash(style: int) -> str | None:
    """Lines differ in their dashes too, so that they can be told apart in grey."""
    return DASHES[(style + style // COLOURS) % len(DASHES)] or None


def y_axis(scale: Scale, left: float, right: float, title: str) -> Markup:
    """Tick labels, hair lines across, and the title above the axis."""
    parts: list[Markup] = []
    for value, label in scale.ticks():
        y = scale(value)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(text(left - 5, y + 4, label, anchor="end"))
    return join(*parts, text(2, 11, title, kind="axis"))


def x_axis(places: Iterable[tuple[float, str]], left: float, right: float, bottom: float, title: str) -> Markup:
    """(place, label) ticks under the base line, and the title below."""
    parts = [element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="base")]
    for x, label in places:
        parts.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="base"))
        parts.append(text(x, bottom + 15, label, anchor="middle"))
    return join(*parts, text((left + right) / 2, bottom + 31, title, anchor="middle", kind="axis"))
