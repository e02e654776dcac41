"""Write what the records of results/ say into the documents: the card of each method, docs/archive.md, docs/tables.md.

    python scripts/measured.py

Run it after committing new records. Rows without a finished run are left out here; `spnet reproduce` prints them.
"""

import re
from functools import cache
from pathlib import Path

from spnet import reproduction
from spnet.methods import card_of, shipped_methods
from spnet.report.tables import markdown
from spnet.report.wrap import wrapped
from spnet.reproduction import made_by
from spnet.reproduction.methods import rows
from spnet.reproduction.plan import Plan
from spnet.reproduction.scales import SCALES
from spnet.reproduction.table import Cells

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
MARKED = re.compile(r"(<!-- records: (\S+) (\S+) (\d+) -->\n).*?(<!-- end of records -->)", re.DOTALL)
"""In docs/archive.md: target, scale and number of the section whose table stands between the marks."""
COMMON = ("digits", "cpu")
"""Scales whose runs are committed."""
COLUMNS = ("n", "accuracy %", "vs baseline", "own over shuffled", "MMACs", "GFLOPs", "% of static")
"""What a card shows; docs/tables.md has every column, and the rows as trained."""
MORE = "Every column, hardware, versions and commits: docs/tables.md."


@cache
def sections(target: str, scale: str, results: Path) -> list[tuple[str, Cells, list[str]]]:
    """Title, cells of the rows that have a finished run, and notes of each section with more of them than the static
    networks."""
    plan = Plan(SCALES[scale], SCALES[scale].seeds)
    found = []
    for title, cells, notes in reproduction.rendered(target, plan, results):
        head, *lines = cells
        counts = [k for k, name in enumerate(head) if name == "n" or name.startswith("n, ")]
        kept = [line for line in lines if not counts or any(line[k] != "0" for k in counts)]
        if not all(line[0].startswith("static ") or line[-1] == "not run" for line in kept):
            found.append((title, [head, *kept], notes))
    return found


def card(method: str, results: Path) -> str:
    """Markdown: the method's calibrated rows, alone and with SP-Net, of the largest scale it has run at."""
    text = "Nothing at the common recipe yet."
    for name in COMMON:
        plan = Plan(SCALES[name], SCALES[name].seeds)
        tables = {title: cells for title, cells, _ in sections("methods", name, results)}
        cells = [["method", "data", *COLUMNS]]
        for data in plan.scale.datasets:
            mine = {row.name: row.runs for row in rows(plan, data) if row.runs[0].method == method}
            head, *lines = next((cells for title, cells in tables.items() if title.endswith(f" {data}")), [[]])
            kept = [line for line in lines if line[0] in mine and not line[0].endswith(" uncalibrated")]
            cells += [[line[0], data, *(line[head.index(column)] for column in COLUMNS)] for line in kept]
        if len(cells) > 1:
            about = f"The common recipe, against static ResNet-20. {plan.scale.caution} {MORE}"
            text = f"{markdown(cells)}\n{wrapped(about)}"
    return text


def filled(card: str, text: str) -> str:
    """The card with `text` between its marks; without marks, at the head of its section `Measured`."""
    block = f"{BEGIN}\n{text}\n{END}"
    if BEGIN in card:
        before, rest = card.split(BEGIN)
        return before + block + rest.split(END)[1]
    return card.replace("## Measured\n", f"## Measured\n\n{block}\n", 1)


def with_tables(text: str, results: Path) -> str:
    """The document with the table of the records between each pair of marks."""

    def renewed(found: re.Match[str]) -> str:
        begin, target, scale, number, end = found.groups()
        return f"{begin}{markdown(sections(target, scale, results)[int(number)][1])}{end}"

    return MARKED.sub(renewed, text)


def every_table(results: Path) -> str:
    """Markdown: all tables of all targets, from the records there are."""
    parts = ["# Tables\n\nEvery table of the committed records, written by `scripts/measured.py`; what they say: "]
    parts[0] += "[the record](archive.md).\n"
    for name in COMMON:
        plan = Plan(SCALES[name], SCALES[name].seeds)
        parts.append(f"## Scale {name}\n\n{plan.scale.caution}\n")
        for target in reproduction.TARGETS:
            made = made_by(reproduction.runs(target, plan), results)
            for title, cells, notes in sections(target, name, results):
                parts.append(f"### {title}\n\n`spnet reproduce {target} --scale {name}`. {made}\n\n{markdown(cells)}")
                parts.append("".join(f"- {note}\n" for note in notes))
    return "\n".join(part for part in parts if part)


if __name__ == "__main__":
    records = ROOT / "results"
    for name in shipped_methods():
        path = card_of(name)
        path.write_text(filled(path.read_text("utf-8"), card(name, records)), "utf-8")
    archive = ROOT / "docs" / "archive.md"
    archive.write_text(with_tables(archive.read_text("utf-8"), records), "utf-8")
    (ROOT / "docs" / "tables.md").write_text(every_table(records), "utf-8")
