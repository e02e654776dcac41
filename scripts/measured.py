"""Write into each method's card what the records of results/ say about it at the common recipe.

    python scripts/measured.py

One table for each scale and data set that has a finished run of the method.
"""

from pathlib import Path

from spnet.experiments import foot
from spnet.experiments.methods import baseline, rows
from spnet.experiments.output import markdown
from spnet.experiments.plan import Plan
from spnet.experiments.scales import SCALES
from spnet.experiments.table import Row, table

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "src" / "spnet" / "methods" / "cards"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
COMMON = ("digits", "cpu")
"""Scales whose runs are committed."""
COLUMNS = (
    "method", "n", "accuracy %", "vs baseline", "own over shuffled", "fixed path %", "MMACs", "GFLOPs", "% of static",
    "paths", "KL", "flips", "train s",
)  # fmt: skip


def measured(method: str, results: Path) -> str:
    """Markdown: the method's rows, alone and with SP-Net, of every scale and data set it has run on."""
    parts = []
    for name in COMMON:
        plan = Plan(SCALES[name], SCALES[name].seeds)
        for data in plan.scale.datasets:
            everything = rows(plan, data)
            mine = [row for row in everything if row.runs[0].method == method]
            # The baseline is a row of its own network's table; elsewhere it is only what is compared with.
            head, *lines = table(everything, results, baseline(plan))
            chosen = [head.index(column) for column in COLUMNS]
            kept = [line for line in lines if line[0] in {row.name for row in mine} and line[1] != "0"]
            if kept:
                cells = [[line[i] for i in chosen] for line in (head, *kept)]
                parts.append(f"{_title(plan, data)}\n\n{markdown(cells)}\n{_made(mine, plan, results)}")
    return "\n\n".join(parts) or "Nothing at the common recipe yet."


def _title(plan: Plan, data: str) -> str:
    scale = plan.scale
    return f"**{data}, {scale.backbone}, common recipe, scale `{scale.name}`** (baseline: {baseline(plan)})"


def _made(mine: list[Row], plan: Plan, results: Path) -> str:
    caution, _, made = foot([run for row in mine for run in row.runs], plan, results)  # the middle explains columns
    return f"{caution} {made.split('. ', 1)[1].rsplit(' Command:', 1)[0]}"


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
