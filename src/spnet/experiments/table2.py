"""Table 2: ConvNet-AIG, SkipNet, CoDiNet and SP-Net brought to the same cost, over seeds.

The paper's 0.40 +- 0.03 GFLOPs on ResNet-110 is 79 % of the static network; the same share at every scale.
"""

from spnet.experiments.methods import at, baseline, caveats, ladder
from spnet.experiments.paper import TABLE2
from spnet.experiments.plan import Plan
from spnet.experiments.section import Section
from spnet.experiments.table import Row
from spnet.recipes.published import PUBLISHED

METHODS = ("convnet-aig", "skipnet", "codinet", "spnet")


def sections(plan: Plan) -> list[Section]:
    budget = plan.scale.budgets[0]
    found = []
    for data in plan.scale.datasets:
        common = [
            Row(f"{m} (common)", plan.runs(data, m), at(budget), paper=TABLE2.get((data, m), "")) for m in METHODS
        ]
        own = [
            Row(f"{m} (own)", plan.runs(data, m, **PUBLISHED[m]), at(budget), paper=TABLE2.get((data, m), ""))
            for m in METHODS
        ]
        found.append(
            Section(
                f"Table 2 on {data}: every method at {100 * budget:.0f} % of the static cost",
                [*ladder(plan, data), *common, *own],
                baseline(plan),
                notes=(
                    "common: one recipe for all, see docs/reproduction.md; own: the optimiser and schedule each method "
                    "was published with.",
                    *caveats(METHODS),
                ),
            )
        )
    return found
