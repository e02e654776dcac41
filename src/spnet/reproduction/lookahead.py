"""What cheap routing costs in accuracy: routers that decide six blocks at a time, and narrow ones.

At batch 1 the routers of a deep network take most of what skipping saves; `lookahead` and `hidden` are the remedy.
"""

from typing import Any

from spnet.reproduction.lines import Row
from spnet.reproduction.methods import baseline, ladder
from spnet.reproduction.plan import Plan
from spnet.reproduction.section import Section

ROUTERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("one router a block, 128 wide", {}),
    ("lookahead 6, 128 wide", {"lookahead": 6}),
    ("one router a block, 16 wide", {"hidden": 16}),
    ("lookahead 6, 16 wide", {"lookahead": 6, "hidden": 16}),
)


def sections(plan: Plan) -> list[Section]:
    data = plan.scale.datasets[0]
    rows = [
        Row(f"spnet, {name}, at {budget}", plan.runs(data, "spnet", **settings), budget)
        for budget in plan.scale.budgets
        for name, settings in ROUTERS
    ]
    return [Section(f"Routers of SP-Net on {data}", [*ladder(plan, data), *rows], baseline(plan))]
