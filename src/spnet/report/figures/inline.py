"""A figure as SVG inside the page: colours follow it, text stays text, nothing has an id that could clash."""

import io
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from spnet.report.figures.theme import COLOURS, INKS
from spnet.report.markup import Markup, element, join, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Hover = tuple[float, float, float, float, str]
"""Left, top, width, height in the drawing, and what the pointer is told there."""

_VARIABLES = {value: f"var(--{name})" for name, value in INKS.items()}
_VARIABLES |= {value: f"var(--c{number})" for number, value in enumerate(COLOURS)}
_KEPT = re.compile("(fill|stroke|stroke-width|stroke-dasharray|fill-opacity|text-anchor): *(?!start)[^;]+")


def inline(axes: "Axes", summary: str, hovers: Iterable[Hover] = ()) -> Markup:
    """summary: what a screen reader says; an empty one hides the drawing from it."""
    file = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    axes.figure.savefig(file, format="svg", transparent=True, metadata=nothing)  # type: ignore[union-attr]
    root = ElementTree.fromstring(file.getvalue())
    markers = {f"#{node.get('id')}": node.get("d", "") for node in root.iter() if node.tag.endswith("}path")}
    boxes = [element("rect", element("title", title), x=x, y=y, width=w, height=h) for x, y, w, h, title in hovers]
    return element(
        "svg",
        *(_markup(node, markers) for node in root),
        element("g", *boxes, class_="hover") if boxes else None,
        viewBox=root.get("viewBox"),
        **({"role": "img", "aria_label": summary} if summary else {"aria_hidden": "true"}),
    )


def _markup(node: ElementTree.Element, markers: dict[str, str]) -> Markup | None:
    """A node of matplotlib's SVG in the page's words: groups that say nothing are opened, markers drawn in place."""
    given = {name.rpartition("}")[2]: value for name, value in node.items()}
    at = {name: float(given[name]) for name in ("x", "y", "width", "height") if name in given}
    style = ";".join(part[0].replace(" ", "") for part in _KEPT.finditer(given.get("style", "")))
    style = re.sub("#[0-9a-f]{6}", lambda found: _VARIABLES.get(found[0], found[0]), style) or None
    match node.tag.rpartition("}")[2]:
        case "g":
            inside = join(*(_markup(child, markers) for child in node))
            mark, _, named = given.get("id", "").partition(":")
            classes, _, title = named.partition(":")
            words = element("title", title) if title else None
            return element("g", words, inside, class_=classes or None) if inside and mark == "class" else inside
        case "text":
            return element("text", node.text or "", **at, style=style)
        case "path" if "d" in given and style != "fill:none":
            return element("path", d=_path(given["d"]), style=style)
        case "use":
            moved = f"translate({short(at['x'])} {short(at['y'])})"
            return element("path", d=_path(markers[given["href"]]), transform=moved, style=style)
        case "image":
            return element("image", href="".join(given["href"].split()), transform=given["transform"], **at)


def _path(data: str) -> str:
    """Path data in whole tenths of a unit, by steps: about six bytes a point, and without drift."""
    parts: list[str] = []
    pen = (0, 0)
    for command, rest in re.findall("([MLCQz])([^MLCQz]*)", data):
        numbers = [round(10 * float(number)) for number in rest.split()]
        steps = numbers if command == "M" else [number - pen[i % 2] for i, number in enumerate(numbers)]
        pen = (numbers[-2], numbers[-1]) if numbers else pen
        if any(steps) or command in "Mz":
            parts.append((command if command == "M" else command.lower()) + " ".join(map(_tenths, steps)))
    return "".join(parts).replace(" -", "-")


def _tenths(count: int) -> str:
    """`.7`, `-12.5`, `3`: a number of tenths in as few characters as it takes."""
    return short(count / 10).replace("0.", ".") if -10 < count < 10 else short(count / 10)
