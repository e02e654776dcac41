"""One network calibrated to a budget, or a network trained for it? SP-Net at several target rates, as it lands and
calibrated."""

from typing import Any

from spnet.reproduction.lines import Row
from spnet.reproduction.methods import baseline, ladder
from spnet.reproduction.plan import Plan
from spnet.reproduction.section import Section

TARGETS = (0.3, 0.45, 0.6, 0.8)


def sections(plan: Plan) -> list[Section]:
    data = plan.scale.datasets[0]
    # The common recipe's own target is left out of the settings, so that its runs are shared.
    common = plan.scale.dynamic["target"]
    trained = {}
    for target in TARGETS:
        changes: dict[str, Any] = {} if target == common else {"target": target}
        trained[target] = plan.few.runs(data, "spnet", **changes)
    rows = [Row(f"target {target}, uncalibrated", runs) for target, runs in trained.items()]
    rows += [
        Row(f"target {target}, at {budget}", runs, budget)
        for budget in plan.scale.budgets
        for target, runs in trained.items()
    ]
    return [
        Section(f"SP-Net on {data}: trained for a budget, or calibrated", [*ladder(plan, data), *rows], baseline(plan))
    ]
