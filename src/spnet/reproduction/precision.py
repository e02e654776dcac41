"""Do bf16 and fp32 end in the same place? One recipe in both, seeds paired, beside what `auto` chose on its machine."""

from spnet.reproduction.lines import Row
from spnet.reproduction.methods import baseline, ladder
from spnet.reproduction.plan import Plan
from spnet.reproduction.section import Section

METHODS = ("convnet-aig", "spnet")
PRECISIONS = ("fp32", "bf16")


def sections(plan: Plan) -> list[Section]:
    data = plan.scale.datasets[0]
    budget = plan.scale.budgets[0]
    rows = []
    for method in METHODS:
        rows.append(Row(f"{method}, auto", plan.runs(data, method), budget))
        rows += [Row(f"{method}, {name}", plan.runs(data, method, precision=name), budget) for name in PRECISIONS]
    return [
        Section(
            f"Precision on {data} at {100 * budget:.0f} % of the static cost",
            [*ladder(plan, data)[-1:], *rows],
            baseline(plan),
            notes=("auto: bf16 where the processor has the instructions, else fp32; the record says which it was.",),
        )
    ]
