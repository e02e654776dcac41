"""All methods, alone and with SP-Net around them, at common budgets, beside the static ladder: one fair bench.

Common recipe: same seed, same initial backbone, order, augmentation, optimiser, and the same number of passes of the
student; where a method departs from it, a note below the table says so. Cost is matched after training on training
images.
"""

from collections.abc import Iterable

from spnet.reproduction.lines import Row
from spnet.reproduction.plan import Plan
from spnet.reproduction.section import Section

CORE = (
    ("convnet-aig", ""),
    ("convnet-aig", "spnet"),
    ("dynamic", ""),
    ("spnet", ""),
)
"""SP-Net, the two networks it is built on first, and the two together: what the second data set shows where not all
is made on it."""
METHODS = (
    *CORE,
    ("skipnet", ""),
    ("skipnet", "spnet"),
    ("blockdrop", ""),
    ("blockdrop", "spnet"),
    ("codinet", ""),
    ("codinet", "spnet"),
    ("rdi-net", ""),
    ("rdi-net", "spnet"),
)


CAVEATS = {
    "codinet": "CoDiNet trains on two augmented copies of each image: twice the passes of the other rows.",
    "skipnet": "SkipNet is supervised until the last 15 % of the epochs, which go on by reward at a constant low "
    "learning rate; SP-Net around it acts in these alone.",
    "blockdrop": "BlockDrop's policy trains by Adam, after the static start.",
}
"""Where a method departs from the common recipe."""


def caveats(methods: Iterable[str]) -> tuple[str, ...]:
    """What a table that shows these methods has to say."""
    named = set(methods)
    return tuple(words for method, words in CAVEATS.items() if method in named)


def label(method: str, wrapper: str = "") -> str:
    """`dynamic + spnet + sandwich`, as `RunConfig.label`."""
    return " + ".join([method, *wrapper.split("+")]) if wrapper else method


def ladder(plan: Plan, data: str) -> list[Row]:
    """Static networks of the same recipe, from small to full."""
    return [Row(f"static {name}", plan.runs(data, "static", backbone=name)) for name in plan.scale.ladder]


def baseline(plan: Plan) -> str:
    return f"static {plan.scale.backbone}"


def rows(plan: Plan, data: str) -> list[Row]:
    """The static ladder (with and without SP-Net's heads and teacher), then every method at every budget."""
    methods = METHODS if data in plan.scale.main_datasets else CORE
    found = ladder(plan, data)
    found.append(Row(f"static {plan.scale.backbone} + spnet", plan.runs(data, "static", "spnet")))
    for budget in plan.scale.budgets:
        for method, wrapper in methods:
            found.append(Row(f"{label(method, wrapper)} at {budget}", plan.runs(data, method, wrapper), budget))
    for method, wrapper in methods:
        found.append(Row(f"{label(method, wrapper)} uncalibrated", plan.runs(data, method, wrapper)))
    return found


def sections(plan: Plan) -> list[Section]:
    return [
        Section(
            f"All methods on {data}",
            rows(plan, data),
            baseline(plan),
            notes=caveats(method for method, _ in (METHODS if data in plan.scale.main_datasets else CORE)),
        )
        for data in plan.scale.datasets
    ]
