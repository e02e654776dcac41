"""`spnet predict --draw`: pictures of images with the blocks they ran."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from PIL import Image

from spnet.cli import main
from spnet.report.paths import MOST, Walked, drawn


def boxes(figure, row: int = 0) -> list[Rectangle]:
    """The boxes of the blocks of one image."""
    return [patch for patch in figure.axes[2 * row + 1].patches if isinstance(patch, Rectangle)]


def fullness(box: Rectangle) -> float:
    return to_rgba(box.get_facecolor())[3]


def test_a_box_a_block_as_full_as_the_option_is_large() -> None:
    walked = Walked(np.zeros((3, 8, 8), np.uint8), "cat, 99 %", "", [1, 0, 2, 0, -1, 0], [2, 2, 3, 1, 2, 3], (2, 4))
    drawing = boxes(drawn([walked]))
    assert [fullness(box) for box in drawing] == [1, 0, 1, 1, 0, 0]  # a block without a choice always runs
    assert [box.get_linestyle() for box in drawing] == ["-", ":", "-", "-", ":", ":"]
    left = [box.get_x() for box in drawing]
    assert left[2] - left[1] > left[1] - left[0]  # stages stand apart
    half = Walked(np.zeros((1, 8, 8), np.uint8), "", "", [1], [3], (1,))
    assert fullness(boxes(drawn([half]))[0]) == 0.5


def test_only_the_first_images_are_drawn() -> None:
    walked = Walked(np.zeros((1, 4, 4), np.uint8), "a", "b", [1], [2], (1,))
    assert len(drawn([walked] * (MOST + 3)).axes) == 2 * MOST


def test_predict_draws_what_it_says(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (8, 8), 99).save(tmp_path / "a.png")
    assert main(["predict", str(trained), str(tmp_path / "a.png"), "--draw", str(tmp_path / "drawn.svg")]) == 0
    assert "multiply-adds" in (tmp_path / "drawn.svg").read_text()
    capsys.readouterr()
    assert main(["predict", str(trained), str(tmp_path / "a.png"), "--draw", str(tmp_path / "drawn.docx")]) == 2
    assert "must end in .png, .svg, .pdf" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "drawn.svg"]
