"""Table 2: ConvNet-AIG, SkipNet, CoDiNet and SP-Net brought to the same cost, over seeds.

The paper's 0.40 +- 0.03 GFLOPs on ResNet-110 is 79 % of the static network; the same share at every scale.
"""

from spnet.reproduction.lines import Line, Row
from spnet.reproduction.methods import baseline, caveats, ladder
from spnet.reproduction.paper import TABLE2
from spnet.reproduction.plan import Plan
from spnet.reproduction.published import PUBLISHED
from spnet.reproduction.section import Section
from spnet.reproduction.statistics import summary
from spnet.reproduction.table import Cells, number

METHODS = ("convnet-aig", "skipnet", "codinet", "spnet")
HEAD = (
    "method", "common %", "n, common", "own %", "n, own", "% of static, common", "% of static, own",
    "paper: % (at GFLOPs)",
)  # fmt: skip
_RECIPES = (
    "common: one recipe for all, see docs/reproduction.md; own: the optimiser and schedule each method was published "
    "with."
)


def sections(plan: Plan) -> list[Section]:
    budget = plan.scale.budgets[0]
    title = f"at {100 * budget:.0f} % of the static cost"
    found = []
    for data in plan.scale.datasets:
        recipes = [
            Row(f"{method} ({recipe})", plan.runs(data, method, **changes), budget, TABLE2.get((data, method), ""))
            for method in METHODS
            for recipe, changes in (("common", {}), ("own", PUBLISHED[method]))
        ]
        notes = (_RECIPES, *caveats(METHODS))
        found.append(Section(f"Table 2 on {data}: accuracy {title}", recipes, cells=_by_recipe, notes=notes))
        controlled = [*ladder(plan, data), *recipes]
        found.append(
            Section(f"Table 2 on {data}: the same rows with their controls", controlled, baseline(plan), notes=notes)
        )
    return found


def _by_recipe(lines: list[Line], baseline: str | None) -> Cells:
    """One row a method, one column a recipe; lines come in pairs, common and own."""
    cells = [[*HEAD]]
    for common, own in zip(lines[::2], lines[1::2], strict=True):
        accuracies = [part for line in (common, own) for part in (_accuracy(line), str(len(line.figures)))]
        method = common.name.partition(" (")[0]
        cells.append([method, *accuracies, _share(common), _share(own), common.row.paper])
    return cells


def _accuracy(line: Line) -> str:
    return str(summary(list(line.by_seed.values()))) if line.by_seed else ""


def _share(line: Line) -> str:
    cost = line.mean(lambda f: f.cost_ratio)
    return number(cost and 100 * cost, ".1f")
