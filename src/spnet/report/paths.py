"""A few images with the blocks that each of them ran: the picture of what a dynamic network does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spnet.errors import UserError
from spnet.report.figures import theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("png", "svg", "pdf")
MOST = 12
"""More images than this are no picture any more."""
ROW, BLOCK, GAP = 0.62, 0.2, 0.12
"""Inches: height of a row, width of a block, room between stages."""
WORDS = 2.6
"""Inches beside the blocks, for what stands in words."""


@dataclass(frozen=True)
class Walked:
    """An image (C, H, W), uint8, and what became of it. path: the option of each block, 0 = skipped, -1 = not reached;
    options: how many each block has; stages: blocks of each stage."""

    image: np.ndarray
    title: str
    words: str
    path: Sequence[int]
    options: Sequence[int]
    stages: Sequence[int]


def check_file(file: Path) -> None:
    """Raises:
    UserError: if the file's ending is none of `FORMS`."""
    if file.suffix[1:].lower() not in FORMS:
        raise UserError(f"'{file}' must end in {', '.join('.' + form for form in FORMS)}: that says what is drawn")


def draw(walked: Sequence[Walked], file: Path) -> None:
    """Write the picture of the first of them."""
    theme.save(file.with_suffix(""), drawn(walked), (file.suffix[1:].lower(),))


def drawn(walked: Sequence[Walked]) -> "Figure":
    """One row an image: the image, a box a block (full: it ran; pale: in part; empty and dotted: it did not), and what
    came of it."""
    from matplotlib.figure import Figure

    shown = list(walked[:MOST])
    wide = max(sum(row.stages) * BLOCK + len(row.stages) * GAP for row in shown)
    with theme.styled():
        figure = Figure(figsize=(ROW + wide + WORDS, ROW * len(shown) + 0.08))
        size = figure.get_size_inches()
        for number, row in enumerate(shown):
            bottom = size[1] - 0.04 - ROW * (number + 1)
            picture = figure.add_axes((0.04 / size[0], (bottom + 0.05) / size[1], 0.52 / size[0], 0.52 / size[1]))
            picture.set_axis_off()
            picture.imshow(_pixels(row.image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes = figure.add_axes((0, bottom / size[1], 1, ROW / size[1]), xlim=(0, size[0]), ylim=(0, ROW))
            axes.set_axis_off()
            end = _blocks(axes, row)
            axes.text(end + 0.12, 0.38, theme.plain(row.title), va="center", fontweight="bold")
            axes.text(end + 0.12, 0.19, theme.plain(row.words), va="center", color=theme.INKS["soft"], fontsize="small")
    return figure


def _pixels(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 2, 0) if len(image) == 3 else image[0]


def _blocks(axes: "Axes", row: Walked) -> float:
    """The boxes of one image; where they end."""
    from matplotlib.patches import Rectangle

    hue, left, block = theme.colour(0), ROW + 0.08, 0
    for length in row.stages:
        for _ in range(length):
            option, most = row.path[block], row.options[block] - 1
            share = 0.0 if option < 0 else option / most if most else 1.0
            axes.add_patch(
                Rectangle(
                    (left, 0.14),
                    BLOCK - 0.05,
                    0.34,
                    facecolor=(*_rgb(hue), share),
                    edgecolor=hue if share else theme.INKS["soft"],
                    linewidth=1.1,
                    linestyle="-" if share else ":",
                )
            )
            left, block = left + BLOCK, block + 1
        left += GAP
    return left - GAP


def _rgb(hue: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(hue)
