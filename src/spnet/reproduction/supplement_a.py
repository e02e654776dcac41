"""Supplement A: the terms of SP-Net added one by one, the evolution loss alone, and what each term does to what it
names."""

from typing import Any

from spnet.methods.spnet import PRESETS
from spnet.reproduction.lines import Line, Row, known_mean
from spnet.reproduction.methods import baseline, ladder
from spnet.reproduction.paper import EVOLUTION_ALONE
from spnet.reproduction.plan import Plan
from spnet.reproduction.section import Section
from spnet.reproduction.table import Cells
from spnet.runs.config import RunConfig
from spnet.runs.record import EndOfTraining

RELEASED: dict[str, float] = dict(zip(("path", "logits", "evolution"), PRESETS["released"], strict=True))
NOTHING: dict[str, float] = dict.fromkeys(RELEASED, 0.0)
ONLY_LAST = (0.0, 0.0, 1.0)
"""Stage weights without multi-stage classification: the heads exist, the last stage alone is trained."""
SWEEP = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
TERMS = ("classification", "rate", "path", "logits", "evolution")


def sections(plan: Plan) -> list[Section]:
    budget = plan.scale.budgets[0]
    found = []
    for data in plan.scale.main_datasets:
        steps = [
            ("E1 dynamic", plan.runs(data, "dynamic")),
            ("E2 + stage classifiers", _spnet(plan, data, **NOTHING)),
            ("E3 + evolution", _spnet(plan, data, path=0.0, logits=0.0)),
            ("E4 + logits", _spnet(plan, data, path=0.0)),
            ("E5 + path = SP-Net", _spnet(plan, data)),
        ]
        alone = _spnet(plan, data, path=0.0, logits=0.0, stage_weights=ONLY_LAST)
        static = Row("E0 static", plan.runs(data, "static"))
        rows = [*ladder(plan, data), static, *(Row(name, runs, budget) for name, runs in steps)]
        rows.append(Row("E1 + evolution alone", alone, budget, paper=EVOLUTION_ALONE.get(data, "")))
        found.append(Section(f"Supplement A on {data}: terms added one by one", rows, baseline(plan)))
        sweep = [Row(f"evolution weight {w:g}", _spnet(plan, data, evolution=w), budget) for w in SWEEP]
        found.append(
            Section(f"Supplement A on {data}: the evolution weight", [*ladder(plan, data), *sweep], baseline(plan))
        )
        without = [Row(f"SP-Net, {term} weight 0", _spnet(plan, data, **{term: 0.0})) for term in ("path", "logits")]
        found.append(
            Section(
                f"Supplement A on {data}: value of each term at the end of training, and its share of the gradient",
                [Row(name, runs) for name, runs in steps]
                + [Row("E1 + evolution alone", alone), *without, *_ends(sweep)],
                cells=_terms,
                notes=(
                    "value / share: the unweighted loss in the last epoch, and its part of the sum of gradient norms.",
                ),
            )
        )
    return found


def _spnet(plan: Plan, data: str, **weights: Any) -> tuple[RunConfig, ...]:
    """SP-Net with some weights changed; a weight at its released value is left out, so that runs are shared."""
    return plan.runs(data, "spnet", **{name: w for name, w in weights.items() if RELEASED.get(name) != w})


def _ends(rows: list[Row]) -> list[Row]:
    return [Row(row.name, row.runs) for row in rows]


def _terms(lines: list[Line], baseline: str | None) -> Cells:
    cells = [["run", "n", *TERMS, "zero steps"]]
    for line in lines:
        ends = [record.end_of_training for record in line.records]
        cells.append(
            [
                line.name,
                str(len(ends)),
                *(_value_and_share(ends, term) for term in TERMS),
                _shown(known_mean(end.watched.get("zero_steps") for end in ends)),
            ]
        )
    return cells


def _value_and_share(ends: list[EndOfTraining], term: str) -> str:
    value = known_mean(end.watched.get(term) for end in ends)
    share = known_mean(end.gradient_share.get(term) for end in ends)
    return _shown(value) if value is None or share is None else f"{_shown(value)} / {100 * share:.2g} %"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
