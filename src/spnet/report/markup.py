"""HTML and SVG as text in which nothing can forget to be escaped: plain strings are escaped, `Markup` is not."""

from html import escape


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | None
Value = str | float | bool | None

_VOID = frozenset({"meta", "img", "br", "link"})
_EMPTY_SVG = frozenset({"rect", "line", "path", "circle", "polygon"})


def element(name: str, /, *children: Child, **attributes: Value) -> Markup:
    """`element("a", "x < y", href="#n")`: `class_` is `class`, `_` is `-`; None and False leave the attribute out."""
    given = {key: value for key, value in attributes.items() if value is not None and value is not False}
    text = "".join(_attribute(key, value) for key, value in given.items())
    inside = join(*children)
    if name in _VOID:
        return Markup(f"<{name}{text}>")
    if not inside and name in _EMPTY_SVG:
        return Markup(f"<{name}{text}/>")
    return Markup(f"<{name}{text}>{inside}</{name}>")


def join(*children: Child) -> Markup:
    """The children one after the other; None is nothing."""
    return Markup("".join(c if isinstance(c, Markup) else escape(c) for c in children if c is not None))


def _attribute(key: str, value: Value) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(short(value) if isinstance(value, (int, float)) else str(value))}"'


def short(value: float) -> str:
    """A coordinate, to a tenth of a unit and in as few characters as it takes."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
