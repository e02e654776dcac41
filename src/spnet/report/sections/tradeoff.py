"""Accuracy against cost of several runs: what a dynamic network wins over simply taking a smaller one."""

from collections.abc import Sequence
from statistics import fmean

from spnet.report.figures import Point, scatter
from spnet.report.figures.theme import ACCURACY
from spnet.report.groups import Group
from spnet.report.layout import figure
from spnet.report.markup import Markup
from spnet.report.numbers import finite, fixed, percent_of
from spnet.report.sections.comparison import accuracy, cost, images

LADDER = "the static ladder: networks that run every block"


def trade_off(groups: Sequence[Group]) -> list[Markup]:
    """Accuracy against cost; one chart for each data set."""
    by_data: dict[str, list[Point]] = {}
    counts: dict[str, set[float]] = {}
    for g in groups:
        by_data.setdefault(g.runs[0].data, []).extend(_points(g))
        counts.setdefault(g.runs[0].data, set()).update(n for run in g.runs if (n := images(run)) is not None)
    return [
        figure(
            f"Accuracy against cost on {data}",
            scatter(points, x_title="cost per image, MMACs", y_title=ACCURACY),
            _about(points, sorted(counts[data])),
        )
        for data, points in by_data.items()
        if points
    ]


def _points(g: Group) -> list[Point]:
    """The group's own point, and one for each further budget its networks were calibrated to."""
    x, y = g.summary(cost), g.summary(accuracy)
    if x is None or y is None:
        return []
    records = [record for run in g.runs for record in run.budgets]
    budgets = sorted({record.budget for record in records if finite(record.budget)})
    joined = f"{g.name}: at several budgets" if budgets else ""
    if g.static:
        joined = f"{g.runs[0].label}: {LADDER}"

    def told(at: str, across: float, up: float, count: int) -> str:
        mean = f", mean of {count} runs" if count > 1 else ""
        return f"{g.name}{at}: {fixed(up)} % at {fixed(across, 3)} MMACs{mean}"

    title = told("", x[0], y[0], g.count(accuracy))
    own = Point(g.name, x[0], y[0], title, g.style, x[1] or 0.0, y[1] or 0.0, joined=joined, hollow=g.static)
    points = [own]
    for budget in budgets:
        alike = [r for r in records if r.budget == budget and finite(r.macs_mean) and finite(r.accuracy)]
        if alike:
            at_x, at_y = fmean(r.macs_mean for r in alike), fmean(r.accuracy for r in alike)
            title = told(f" calibrated to {percent_of(budget)}", at_x / 1e6, at_y, len(alike))
            points.append(Point("", at_x / 1e6, at_y, title, g.style, joined=joined))
    return points


def _about(points: Sequence[Point], counts: Sequence[float]) -> str:
    words = f"Test set, n = {' or '.join(fixed(n, 0) for n in counts)} images. "
    if any(p.hollow for p in points):
        words += (
            "Hollow points joined by a grey line: the static ladder, networks that run every block. A dynamic network "
        )
        words += "pays only where it lies above that line."
    else:
        words += "No static run is among these: what a smaller plain network would reach is not shown."
    if any(not p.name for p in points):
        words += " Points joined by a line in their colour: the same networks calibrated to several budgets."
    if any(p.y_spread for p in points):
        words += " Bars: ± 1 standard deviation over the seeds."
    return words
