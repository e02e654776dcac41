"""Who wins at equal passes? The static ladder, the dynamic methods and SP-Net's parts, at each budget.

Every row has the same number of student passes: where a step passes each image twice (CoDiNet's copies, the sandwich's
full path) a training has fewer epochs, as many as fit into the passes of the others.
"""

from typing import Any

from spnet.reproduction.lines import Row
from spnet.reproduction.methods import baseline, label, ladder
from spnet.reproduction.plan import Plan, at_equal_passes, student_passes
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
OTHERS = (
    ("sandwich", ""),
    ("dynamic", "spnet+sandwich"),
    ("convnet-aig", ""),
    ("convnet-aig", "spnet"),
    ("codinet", ""),
)


def _trained(plan: Plan) -> list[tuple[str, tuple[RunConfig, ...]]]:
    """Name and runs of each dynamic contender."""
    data, few = plan.scale.datasets[0], plan.few
    found = [(label(*names), plan.runs(data, *names)) for names in CONTENDERS]
    found += [(label(*names), few.runs(data, *names)) for names in OTHERS]
    found += [(name, few.runs(data, "spnet", **terms)) for name, terms in PARTS]
    return [(name, tuple(at_equal_passes(run) for run in runs)) for name, runs in found]


def networks(plan: Plan) -> list[RunConfig]:
    """All of them: cascades are made of trained networks."""
    return [run for section in sections(plan) for run in section.runs]


def sections(plan: Plan) -> list[Section]:
    data = plan.scale.datasets[0]
    rows, trained = [*ladder(plan.few, data)[:-1], ladder(plan, data)[-1]], _trained(plan)
    for budget in plan.scale.budgets:
        rows += [Row(f"{name} at {budget}", runs, budget) for name, runs in trained]
    usual = plan.scale.base["epochs"]
    shorter = {name: runs[0] for name, runs in trained if runs[0].training.epochs < usual}
    lengths = ", ".join(f"{name}: {run.training.epochs} for {student_passes(run)}" for name, run in shorter.items())
    notes = (
        f"Each image passes {usual} times through the student, the static start among them. Fewer epochs, for so many "
        f"passes, where a step passes it more than once: {lengths}.",
    )
    return [Section(f"Contenders on {data} at equal passes", rows, baseline(plan), notes=notes)]
