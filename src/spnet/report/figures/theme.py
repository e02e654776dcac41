"""One look for all figures: colours, dashes, markers, units. A figure goes into a page (`inline.py`) or into files.

matplotlib is imported where it is used, and its settings are those of a block (`styled`), not of the process.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spnet.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCURACY = "test accuracy, %"
COST = "multiply-adds per image, % of the static network"

INKS = {"paper": "#ffffff", "ink": "#1b1f24", "soft": "#59636e", "line": "#d8dee4", "heat": "#0b4a82", "on": "#fefefe"}
COLOURS = ("#0b63a5", "#b8460e", "#00755a", "#8a3f8f", "#7d5c00", "#3f4650", "#0a7486", "#b02a55")
"""The light colours of style.css, where each has a variable of its name (`--ink`, `--c0`) that a dark page changes."""
DASHES: tuple[Any, ...] = ("-", (0, (6, 3)), (0, (2, 3)), (0, (8, 3, 2, 3)), (0, (14, 4)), (0, (1, 2)))
MARKERS = "os^Dv"

WIDTH, HEIGHT = 400.0, 240.0
"""Units of a drawing in the page: about pixels. Narrow, so that text stays readable at the width of a phone."""
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 24.0, 36.0
CHARACTER = 6.7

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y", "grid.color": INKS["line"],
    "axes.spines.left": False, "axes.spines.right": False, "axes.spines.top": False, "axes.edgecolor": INKS["soft"],
    "axes.titlelocation": "left", "axes.titlesize": "medium", "figure.titlesize": "medium", "axes.ymargin": 0.06,
    "axes.labelcolor": INKS["ink"], "text.color": INKS["ink"], "text.parse_math": False, "font.size": 9,
    "legend.edgecolor": "none", "legend.facecolor": INKS["paper"], "legend.framealpha": 0.9,
    "legend.fontsize": "small", "lines.linewidth": 1.9, "lines.scale_dashes": False,
    "xtick.color": INKS["soft"], "xtick.major.size": 0, "ytick.color": INKS["soft"], "ytick.major.size": 0,
    "svg.hashsalt": "spnet",
}  # fmt: skip
IN_PAGE = {"font__size": 12, "svg__fonttype": "none"}


@contextmanager
def styled(**more: Any) -> Iterator[None]:
    """In this block figures are made and drawn in the library's look. Equal figures give equal bytes."""
    from cycler import cycler
    from matplotlib import rc_context

    cycle: dict[Any, Any] = {"axes.prop_cycle": cycler(color=COLOURS)}
    given: dict[Any, Any] = {name.replace("__", "."): value for name, value in more.items()}
    with rc_context(_STYLE | cycle | given), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the reader's font may have it
        yield


def colour(style: int) -> str:
    return COLOURS[style % len(COLOURS)]


def dash(style: int) -> Any:
    """Lines differ in their dashes too, so that they can be told apart in grey."""
    return DASHES[(style + style // len(COLOURS)) % len(DASHES)]


def marker(style: int) -> str:
    return MARKERS[style % len(MARKERS)]


def save(stem: Path, figure: "Figure", forms: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write `stem`.svg and .png; the same figure gives the same bytes."""
    files = []
    for form in forms:
        drawn = io.BytesIO()
        with styled():
            figure.savefig(drawn, dpi=150, format=form, metadata={"Date": None} if form == "svg" else {})
        files.append(stem.with_name(f"{stem.name}.{form}"))
        write_bytes(files[-1], drawn.getvalue())
    return files


def chart(
    x_title: str, y_title: str, *, left: float = LEFT, right: float = RIGHT, top: float = TOP, height: float = HEIGHT
) -> "Axes":
    """An empty chart for the page, with these margins, the titles of its axes above and below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    across, up = 1 - (left + right) / WIDTH, 1 - (top + BOTTOM) / height
    axes = figure.add_axes((left / WIDTH, BOTTOM / height, across, up))
    axes.set_xlabel(x_title, labelpad=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.locator_params(nbins=6)
    write(axes, 2, 11, y_title)
    return axes


def place(axes: "Axes", x: float, y: float) -> tuple[float, float]:
    """Where a value lies in the drawing, from its upper left corner."""
    axes.get_xlim()  # matplotlib fits the limits to the data when it is asked for them
    across, up = axes.transData.transform((x, y))
    return float(across), float(axes.figure.bbox.height - up)


def write(axes: "Axes", x: float, y: float, words: str, *, kind: str = "", title: str = "", **look: Any) -> None:
    """Text at a place of the drawing; kind: its CSS classes."""
    size, gid = axes.figure.bbox.size, tag(kind, title) if kind or title else None
    axes.figure.text(x / size[0], 1 - y / size[1], plain(words), gid=gid, **look)


def tag(kind: str, title: str = "") -> str:
    """The id of an artist that gets CSS classes and a title under the pointer in the page."""
    return f"class:{kind}:{plain(title)}"


def plain(words: str) -> str:
    """Without what no XML may hold: control characters, halves of characters."""
    return re.sub("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", words)


def width_of(words: str) -> float:
    """About how wide text of the page's charts is, in a wide font."""
    return CHARACTER * len(words)


def shortened(words: str, room: float) -> str:
    """The text if it fits, else its beginning with an ellipsis, else nothing."""
    fits = int(room / CHARACTER) - 1
    return words if width_of(words) <= room else words[:fits].rstrip() + "…" if fits >= 2 else ""
