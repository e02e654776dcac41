"""Write into each method's card what the records of results/ say about it at the common recipe.

    python scripts/measured.py

One table for each scale and data set that has a finished run of the method.
"""

from functools import cache
from pathlib import Path

from spnet.experiments import made_by
from spnet.experiments.lines import collect
from spnet.experiments.methods import baseline, rows
from spnet.experiments.output import markdown
from spnet.experiments.plan import Plan
from spnet.experiments.scales import SCALES
from spnet.experiments.table import table

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "src" / "spnet" / "methods" / "cards"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
COMMON = ("digits", "cpu")
"""Scales whose runs are committed."""
COLUMNS = (
    "method", "n", "accuracy %", "vs baseline", "own over shuffled", "fixed path %", "MMACs", "GFLOPs", "% of static",
    "paths", "KL", "flips", "train s",
)  # fmt: skip


@cache
def whole_table(scale: str, data: str, results: Path) -> list[list[str]]:
    """Every method's rows, of which each card takes its own."""
    plan = Plan(SCALES[scale], SCALES[scale].seeds)
    return table(collect(rows(plan, data), results), baseline(plan))


def measured(method: str, results: Path) -> str:
    """Markdown: the method's rows, alone and with SP-Net, of every scale and data set it has run on."""
    parts = []
    for name in COMMON:
        plan = Plan(SCALES[name], SCALES[name].seeds)
        for data in plan.scale.datasets:
            mine = {row.name: row.runs for row in rows(plan, data) if row.runs[0].method == method}
            head, *lines = whole_table(name, data, results)
            chosen = [head.index(column) for column in COLUMNS]
            kept = [line for line in lines if line[0] in mine and line[1] != "0"]
            if kept:
                cells = [[line[i] for i in chosen] for line in (head, *kept)]
                made = made_by([run for runs in mine.values() for run in runs], results)
                parts.append(f"{_title(plan, data)}\n\n{markdown(cells)}\n{plan.scale.caution} {made}")
    return "\n\n".join(parts) or "Nothing at the common recipe yet."


def _title(plan: Plan, data: str) -> str:
    scale = plan.scale
    return f"**{data}, {scale.backbone}, common recipe, scale `{scale.name}`** (baseline: {baseline(plan)})"


def filled(card: str, text: str) -> str:
    """The card with `text` between its marks; without marks, at the head of its section `Measured`."""
    block = f"{BEGIN}\n{text}\n{END}"
    if BEGIN in card:
        before, rest = card.split(BEGIN)
        return before + block + rest.split(END)[1]
    return card.replace("## Measured\n", f"## Measured\n\n{block}\n", 1)


if __name__ == "__main__":
    for path in sorted(CARDS.glob("*.md")):
        path.write_text(filled(path.read_text(encoding="utf-8"), measured(path.stem, ROOT / "results")), "utf-8")
