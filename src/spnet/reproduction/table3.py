"""Table 3: what SP-Net adds to other dynamic networks. Accuracy without and with it, the paired gain in brackets."""

from dataclasses import replace

from spnet.reproduction.lines import Line, Row
from spnet.reproduction.methods import baseline, caveats, ladder
from spnet.reproduction.paper import TABLE3
from spnet.reproduction.plan import Plan
from spnet.reproduction.section import Section
from spnet.reproduction.statistics import paired_difference, summary
from spnet.reproduction.table import Cells

METHODS = ("convnet-aig", "codinet", "rdi-net")
HEAD = ("method", "budget", "n", "without %", "with SP-Net %", "gain", "% of static without", "with", "paper")


def sections(plan: Plan) -> list[Section]:
    found = []
    for data in plan.scale.main_datasets:
        rows = []
        for budget in plan.scale.budgets:
            for method in METHODS:
                # The paper's operating point is the first budget.
                paper = TABLE3.get((data, method), "") if budget == plan.scale.budgets[0] else ""
                rows.append(Row(f"{method} at {budget}", plan.runs(data, method), budget, paper))
                rows.append(Row(f"{method} + spnet at {budget}", plan.runs(data, method, "spnet"), budget))
        found.append(Section(f"Table 3 on {data}: gains of SP-Net", rows, cells=_gains))
        controlled = [*ladder(plan, data), *(replace(row, paper="") for row in rows)]
        title = f"Table 3 on {data}: the same rows with their controls"
        found.append(Section(title, controlled, baseline(plan), notes=caveats(METHODS)))
    return found


def _gains(lines: list[Line], baseline: str | None) -> Cells:
    """One row a method and budget, over the seeds that both have; lines come in pairs, without and with SP-Net."""
    cells = [[*HEAD]]
    for without, with_spnet in zip(lines[::2], lines[1::2], strict=True):
        shared = without.by_seed.keys() & with_spnet.by_seed.keys()
        if not shared:
            continue
        without, with_spnet = without.of(shared), with_spnet.of(shared)
        gain = paired_difference(with_spnet.by_seed, without.by_seed)
        method, _, budget = without.name.partition(" at ")
        cells.append(
            [
                method,
                budget,
                str(len(shared)),
                str(summary(list(without.by_seed.values()))),
                str(summary(list(with_spnet.by_seed.values()))),
                f"({gain})" if gain else "",
                f"{100 * (without.mean(lambda f: f.cost_ratio) or 0):.1f}",
                f"{100 * (with_spnet.mean(lambda f: f.cost_ratio) or 0):.1f}",
                without.row.paper,
            ]
        )
    return cells
