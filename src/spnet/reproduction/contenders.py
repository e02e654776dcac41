"""Who wins at equal passes? The static ladder, the dynamic methods and SP-Net's parts, at each budget.

Every row sees the same number of images: a method whose step passes each image twice trains half as many epochs.
"""

from typing import Any

from spnet.reproduction.lines import Row
from spnet.reproduction.methods import at, baseline, label, ladder
from spnet.reproduction.plan import Plan
from spnet.reproduction.section import Section
from spnet.runs.config import RunConfig

PARTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dynamic + stage classifiers", {"path": 0.0, "logits": 0.0, "evolution": 0.0}),
    ("dynamic + stage classifiers + logits", {"path": 0.0, "evolution": 0.0}),
    ("dynamic + stage classifiers + logits + path", {"evolution": 0.0}),
    ("spnet, evolution 0.01", {"evolution": 0.01}),
)
"""SP-Net's terms, added one after another; the whole of it stands among the methods."""
CONTENDERS = (("dynamic", ""), ("spnet", ""))
"""Those that get every seed."""
OTHERS = (("convnet-aig", ""), ("convnet-aig", "spnet"), ("codinet", ""))


def _trained(plan: Plan) -> list[tuple[str, tuple[RunConfig, ...]]]:
    """Name and runs of each dynamic contender."""
    data, few = plan.scale.datasets[0], plan.few
    found = [(label(*names), plan.runs(data, *names)) for names in CONTENDERS]
    for method, wrapper in OTHERS:
        halved = {"epochs": plan.scale.base["epochs"] // 2} if method == "codinet" else {}
        found.append((label(method, wrapper), few.runs(data, method, wrapper, **halved)))
    return found + [(name, few.runs(data, "spnet", **terms)) for name, terms in PARTS]


def networks(plan: Plan) -> list[RunConfig]:
    """All of them: cascades are made of trained networks."""
    return [run for section in sections(plan) for run in section.runs]


def sections(plan: Plan) -> list[Section]:
    data = plan.scale.datasets[0]
    rows = [*ladder(plan.few, data)[:-1], ladder(plan, data)[-1]]
    for budget in plan.scale.budgets:
        rows += [Row(f"{name} at {budget}", runs, at(budget)) for name, runs in _trained(plan)]
    notes = ("CoDiNet passes two copies of each image: it trains half as many epochs.",)
    return [Section(f"Contenders on {data} at equal passes", rows, baseline(plan), notes=notes)]
