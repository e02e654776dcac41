"""What the documents show of the package: a short README, the cards, the examples, tables of the records."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 100


def test_every_method_has_a_card_in_one_shape() -> None:
    from spnet.methods import card_of, shipped_methods

    for name in shipped_methods():
        card = card_of(name).read_text(encoding="utf-8")
        sections = re.findall(r"^## (.*)$", card, re.MULTILINE)
        assert sections == ["Idea", "Use", "Settings", "Measured", "Deviations", "Sources"], name


@pytest.mark.slow
def test_adding_a_method_takes_one_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The example defines a method with a router of its own, trains and runs it, and edits nothing of the library."""
    monkeypatch.setattr(sys, "argv", ["add_a_method.py"])
    runpy.run_path(str(ROOT / "examples" / "add_a_method.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "strided-look: " in out and "the first test image ran blocks" in out


def test_what_is_measured_is_written_into_a_card_and_renewed() -> None:
    measured = runpy.run_path(str(ROOT / "scripts" / "measured.py"))
    card = "Idea.\n\n## Measured\n\nBy hand.\n\n## Deviations\n"
    once = measured["filled"](card, "| a |")
    block = f"{measured['BEGIN']}\n| a |\n{measured['END']}"
    assert once == card.replace("By hand.", f"{block}\n\nBy hand.")
    assert measured["filled"](once, "| b |") == once.replace("| a |", "| b |")


def test_a_card_shows_the_records_of_its_method(tmp_path: Path) -> None:
    measured = runpy.run_path(str(ROOT / "scripts" / "measured.py"))
    assert measured["card"]("skipnet", tmp_path) == "Nothing at the common recipe yet."
    text = measured["card"]("dynamic", ROOT / "results")
    _, _, *rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert ["| dynamic at 0.79", "cifar10", "3"] in [row[:3] for row in rows]
    assert {row[0].split()[1] for row in rows} == {"dynamic"} and {row[1] for row in rows} == {"cifar10", "cifar100"}


def test_tables_of_the_records_stand_between_their_marks() -> None:
    measured = runpy.run_path(str(ROOT / "scripts" / "measured.py"))
    text = "Before.\n<!-- records: methods digits 0 -->\nold\n<!-- end of records -->\nAfter.\n"
    new = measured["with_tables"](text, ROOT / "results")
    assert new.startswith("Before.\n<!-- records: methods digits 0 -->\n| method | n |") and new.endswith("After.\n")
    assert "| static resnet8 | 5 |" in new and "old" not in new and "| 0 |" not in new
    assert measured["with_tables"](new, ROOT / "results") == new
