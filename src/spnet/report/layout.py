"""The few kinds of blocks a page is made of: section, figure, table, note."""

from collections.abc import Sequence
from dataclasses import dataclass

from spnet.report.markup import Child, Markup, element, join
from spnet.report.numbers import DASH


def section(title: str, *parts: Child) -> Markup:
    """A titled section. Figures given one after the other stand side by side where the page is wide enough."""
    return element("section", element("h2", title), element("div", *parts, class_="row"))


def figure(title: str, drawing: Child, words: Child = None) -> Markup:
    """A chart under its title; `words` say what is measured, on what."""
    caption = element("p", words, class_="words") if words else None
    return element("figure", element("figcaption", title), drawing, caption)


def note(*words: Child) -> Markup:
    return element("p", *words, class_="note")


def warning(*words: Child) -> Markup:
    """Set apart by its word and a bar, not by colour alone."""
    return element("p", element("strong", "Warning. "), *words, class_="note warning")


@dataclass(frozen=True)
class Cell:
    """What a cell shows and the number it is sorted by (None: by its text, or last if it shows a dash)."""

    shown: Child
    value: float | None = None


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], *, sortable: bool = False, caption: str = "") -> Markup:
    """The first column names the row; the others are numbers. A sortable table's heads are buttons."""
    cells = [element("th", element("button", h, type="button") if sortable else h, scope="col") for h in heads]
    body = [element("tr", *(_cell(cell, place == 0) for place, cell in enumerate(row))) for row in rows]
    grid = element(
        "table",
        element("thead", element("tr", *cells)),
        element("tbody", *body),
        class_="sortable" if sortable else None,
    )
    words = element("p", caption, class_="words") if caption else None  # outside: it must not scroll with the table
    return element("div", words, element("div", grid, class_="scroll"))


def _cell(cell: Cell, first: bool) -> Markup:
    value = None if cell.value is None else repr(cell.value)
    if first:
        return element("th", cell.shown, scope="row", data_value=value)
    return element("td", cell.shown or DASH, data_value=value)


def folded(title: Child, *parts: Child, id: str | None = None, open: bool = False) -> Markup:
    return element("details", element("summary", title), *parts, id=id, open=open)


def facts(pairs: Sequence[tuple[str, Child]]) -> Markup:
    """Short facts as term and description, those without a description left out."""
    return element("dl", *(join(element("dt", t), element("dd", d)) for t, d in pairs if d), class_="facts")
