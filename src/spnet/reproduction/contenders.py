"""Who wins at equal passes? The static ladder, the dynamic methods and SP-Net's parts, at each budget; and cascades of
a smaller static network and another.

Every row has the same number of student passes: where a step passes each image twice (CoDiNet's copies, the sandwich's
full path) a training has fewer epochs, as many as fit into the passes of the others. A cascade of two has taken the
passes of both.
"""

from collections.abc import Iterator
from copy import copy
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spnet.errors import UserError
from spnet.jobs.runner import NETWORKS, finished
from spnet.report.figures import theme
from spnet.reproduction import cascades, milliseconds
from spnet.reproduction.cascades import Pair
from spnet.reproduction.lines import Line, Row, collect
from spnet.reproduction.methods import baseline, label, ladder
from spnet.reproduction.milliseconds import Times
from spnet.reproduction.plan import Plan, at_equal_passes, student_passes
from spnet.reproduction.section import Section
from spnet.reproduction.table import Cells, full_macs
from spnet.runs.config import RunConfig

if TYPE_CHECKING:
    from spnet.data import Source
    from spnet.inference.engine import Engine

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


def pairs(plan: Plan) -> list[Pair]:
    """Each static network before each larger one, and the smallest before each dynamic contender."""
    data = plan.scale.datasets[0]
    rungs = [(row.name.removeprefix("static "), row.runs) for row in ladder(plan.few, data)]
    every_seed = {label(*names) for names in CONTENDERS}
    large = [(name, runs) for name, runs in _trained(plan) if name in every_seed]
    chosen = [*combinations(rungs, 2), *((rungs[0], other) for other in large)]
    return [
        Pair(f"{small} + {name}", members)
        for (small, first), (name, second) in chosen
        for members in zip(first, second, strict=False)
    ]


def prepare(plan: Plan, results: Path) -> None:
    """Evaluate the cascades of what is trained by now."""
    cascades.make(pairs(plan), plan, results)


def time(plan: Plan, results: Path) -> None:
    """Take the milliseconds of what is trained by now; on a quiet machine."""
    from spnet import data

    dataset = data.load(plan.run(plan.scale.datasets[0], "static").data)
    milliseconds.make(_engines(plan, results, dataset.train), dataset.test, plan, results)


def _engines(plan: Plan, results: Path, train: "Source") -> Iterator[tuple[str, "Engine"]]:
    """What a user would call, of the first seed there is: every row's network, every cascade, at every budget."""
    from spnet.inference.calibrate import spread
    from spnet.inference.engine import Engine
    from spnet.runs.open import load
    from spnet.training.finish import CALIBRATION_IMAGES

    images = spread(train, CALIBRATION_IMAGES).images
    for row in sections(plan)[0].rows:
        if (run := next((run for run in row.runs if finished(run, results, network=True)), None)) is None:
            continue
        engine = Engine(load(results / NETWORKS / run.hash), "onnx", threads=1)
        if row.budget is not None:
            try:
                engine.calibrate(images, row.budget)
            except UserError:  # no threshold meets it: the table says so
                continue
        yield row.name, engine
    for pair in pairs(plan):
        if (record := pair.record(results)) is None or not pair.ready(results):
            continue
        engine = cascades.opened(pair, results, "onnx")
        planner = engine.planner(images)
        for figures in (one for one in record.asked if one.met):
            mine = copy(engine)
            mine.meet(planner, figures.budget * record.macs_full / engine.model.static_macs)
            yield f"{pair.name} at {figures.budget}", mine


def tables(plan: Plan, results: Path) -> list[tuple[str, Cells, list[str]]]:
    """What stands beside the rows: who wins at each budget, and the cascades."""
    data = plan.scale.datasets[0]
    few = f"Members of seed {', '.join(map(str, plan.few.seeds))}; calibrated on training images without labels."
    found = [(f"The best of each kind on {data}", best(plan, results), ["Mean accuracy over the seeds there are."])]
    all_of_them = cascades.table(pairs(plan), plan, results)
    if len(all_of_them) > 1:
        found.append((f"Cascades on {data}", all_of_them, [few]))
    if (times := milliseconds.read(plan, results)).rows:
        how = f"Batch 1, one thread, `Engine`, each image in turn through all. {times.made_with.hardware}."
        found.append((f"Milliseconds on {data}", milliseconds.table(times, baseline(plan)), [how]))
    return found


KINDS = ("static network", "dynamic network", "cascade of static networks", "static network, then a dynamic one")


def best(plan: Plan, results: Path) -> Cells:
    """At each budget the most accurate of each kind that costs no more; 2 % over the budget count as met."""
    points, times = _points(plan, results), milliseconds.read(plan, results)
    cells: Cells = [["cost at most", *KINDS]]
    for budget in (1.0, *plan.scale.budgets):
        row = [f"{100 * budget:.0f} %"]
        for kind in KINDS:
            mine = [point for point in points if point.kind == kind]
            met = [point for point in mine if point.cost <= 1.02 * budget]
            top = max(met, key=lambda point: point.accuracy, default=None)
            none = "none" if mine else "not run"
            row.append(_said(top, times) if top else none)
        cells.append(row)
    return cells


def _said(point: "Point", times: Times) -> str:
    timed = times.of(point.name)
    took = f" in {timed.ms:.3g} ms" if timed else ""
    return f"{point.accuracy:.2f} % at {100 * point.cost:.0f} %{took}: {_contender(point)}"


class Point(NamedTuple):
    """A contender at a budget. cost: share of the full static network's; accuracy: percent, mean over the seeds."""

    kind: str
    name: str
    cost: float
    accuracy: float


def _points(plan: Plan, results: Path) -> list[Point]:
    """All that is finished."""
    lines = [line for line in collect(sections(plan)[0].rows, results) if line.figures]
    full = full_macs(lines, baseline(plan)) or 1
    points = [Point(KINDS[0 if line.static else 1], line.name, _macs(line) / full, _accuracy(line)) for line in lines]
    names = {row.name.removeprefix("static ") for row in ladder(plan.few, plan.scale.datasets[0])}
    for pair in pairs(plan):
        record = pair.record(results)
        for figures in (one for one in (record.asked if record else ()) if one.met):
            kind = KINDS[2 if pair.name.split(" + ", 1)[1] in names else 3]
            points.append(Point(kind, f"{pair.name} at {figures.budget}", figures.macs_mean / full, figures.accuracy))
    return points


def _contender(point: Point) -> str:
    """Its name, without the budget."""
    return point.name.split(" at ")[0]


def _macs(line: Line) -> float:
    return line.mean(lambda figures: figures.macs_mean) or 0.0


def _accuracy(line: Line) -> float:
    return line.mean(lambda figures: figures.accuracy) or 0.0


@theme.styled()
def draw(plan: Plan, results: Path, out: Path) -> list[Path]:
    """Accuracy against cost, a line a contender; the best of a kind would hide how far apart they are."""
    from matplotlib.figure import Figure

    points = _points(plan, results)
    if not points:
        return []
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        named = KINDS[0] if point.kind == KINDS[0] else _contender(point)
        lines.setdefault(named, []).append((100 * point.cost, point.accuracy))
    for style, (name, mine) in enumerate(lines.items()):
        xs, ys = zip(*sorted(mine), strict=True)
        axes.plot(
            xs, ys, label=name, color=theme.colour(style), linestyle=theme.dash(style), marker=theme.marker(style),
            markersize=5,
        )  # fmt: skip
    axes.set_xlabel(theme.COST)
    axes.set_ylabel(theme.ACCURACY)
    axes.legend()
    axes.set_title(f"{plan.scale.datasets[0]}, scale {plan.scale.name}, {plan.scale.base['epochs']} passes an image")
    return theme.save(out / "contenders", figure)


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
