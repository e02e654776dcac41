"""Write the README's table of methods from the first line of each card: `python scripts/methods_table.py`."""

from pathlib import Path

from spnet.methods import card_of, shipped_methods

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- methods -->", "<!-- end of methods -->"


def table() -> str:
    """The Markdown table, one row a card, and the links of its names."""
    rows, links = ["| method | idea |", "|---|---|"], []
    for name in shipped_methods():
        card = card_of(name)
        idea = " ".join(card.read_text(encoding="utf-8").split("\n\n")[0].split())
        rows.append(f"| [{name}] | {idea} |")
        links.append(f"[{name}]: {card.relative_to(ROOT).as_posix()}")
    return "\n".join([*rows, "", *links])


def with_table(readme: str) -> str:
    """The README with its table made anew."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
