"""Several runs beside each other in numbers: one row a run, and one row a group of seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spnet.report.groups import Group
from spnet.report.layout import Cell, note, section, table
from spnet.report.markup import Markup, element, join
from spnet.report.numbers import DASH, finite, fixed, mmacs, significant
from spnet.report.run import Run
from spnet.runs.record import EndOfTraining, Evaluation


@dataclass(frozen=True)
class Column:
    head: str
    value: Callable[[Run], float | None]
    show: Callable[[float], str]


def _final(
    figure: Callable[[Evaluation], float], scale: float = 1.0, routed: bool = False
) -> Callable[[Run], float | None]:
    def value(run: Run) -> float | None:
        known = finite(figure(run.final)) if run.final.met else None
        return None if known is None or (routed and not run.routed) else scale * known

    return value


def _logged(figure: Callable[[EndOfTraining], float], scale: float = 1.0) -> Callable[[Run], float | None]:
    def value(run: Run) -> float | None:
        known = finite(figure(run.at_end))
        return None if known is None else scale * known

    return value


def _digits(digits: int) -> Callable[[float], str]:
    return lambda value: fixed(value, digits)


accuracy = _final(lambda f: f.accuracy)
images = _final(lambda f: f.n)


def cost(run: Run) -> float | None:
    """Mean MMACs of a test image."""
    return mmacs(run.final.macs_mean)


COLUMNS = (
    Column("accuracy, %", accuracy, _digits(2)),
    Column("n, images", images, _digits(0)),
    Column("cost, MMACs", cost, _digits(3)),
    Column("cost, GFLOPs", _final(lambda f: f.gflops_mean), _digits(5)),
    Column("cost, % of static", _final(lambda f: f.cost_ratio, 100), _digits(1)),
    Column("shuffled paths, %", _final(lambda f: f.accuracy_shuffled_paths, routed=True), _digits(2)),
    Column("fixed path, %", _final(lambda f: f.accuracy_fixed_path, routed=True), _digits(2)),
    Column("evolution KL, nats", _logged(lambda end: end.evolution_kl), significant),
    Column("flips, %", _logged(lambda end: end.flips, 100), _digits(2)),
    Column("distinct paths", _final(lambda f: f.distinct_paths), _digits(0)),
    Column("training, s", lambda run: run.seconds, _digits(0)),
)


def comparison(groups: Sequence[Group], anchors: dict[int, str]) -> Markup:
    """anchors: id(run) -> the id of its own part of the page."""
    heads = ["run", "seed", *(column.head for column in COLUMNS)]
    rows = [_run_row(found, run, anchors[id(run)]) for found in groups for run in found.runs]
    words = (
        "Every run. Accuracy, n, cost, the controls (shuffled and fixed paths) and distinct paths: test set, by the "
        "test rule, after calibration where there was one. Evolution KL and flips: watched images, last epoch. "
        "1 MAC = 2 FLOPs. A click on a head sorts."
    )
    every = table(heads, rows, sortable=True, caption=words)
    parts: list[Markup | None] = [every]
    if any(len(found.runs) > 1 for found in groups):
        heads = ["runs that differ in their seed only", "finished", *(column.head for column in COLUMNS)]
        means = [_group_row(g) for g in groups]
        parts.insert(
            0, table(heads, means, sortable=True, caption="Means over the finished runs, ± standard deviation.")
        )
    unfinished = [run for found in groups for run in found.runs if not run.finished]
    if unfinished:
        listed = ", ".join(str(run.folder) for run in unfinished)
        parts.append(note(f"Without test figures, because not finished or damaged (see their own parts): {listed}."))
    return section("Comparison", *parts)


def _run_row(found: Group, run: Run, anchor: str) -> list[Cell]:
    name = join(element("a", found.name, href=f"#{anchor}"), element("small", run.folder.name))
    seed = run.config.training.seed
    cells = [Cell(name), Cell(str(seed), float(seed))]
    for column in COLUMNS:
        value = column.value(run)
        cells.append(Cell(DASH if value is None else column.show(value), value))
    return cells


def _group_row(found: Group) -> list[Cell]:
    count = found.count(accuracy)
    cells = [Cell(found.name), Cell(str(count), float(count))]
    for column in COLUMNS:
        summary = found.summary(column.value)
        if summary is None:
            cells.append(Cell(DASH))
            continue
        mean, deviation = summary
        spread = element("small", f"± {column.show(deviation)}") if deviation else None
        cells.append(Cell(join(column.show(mean), spread), mean))
    return cells
