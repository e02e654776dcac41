"""Several runs beside each other in pictures: the curves of training over each other, and the legend of all charts."""

from collections.abc import Sequence

from spnet.report.figures import Line, line_chart, sample
from spnet.report.groups import Group, last_epoch
from spnet.report.layout import figure
from spnet.report.markup import Markup, element
from spnet.report.measures import ACCURACIES, COST, STABILITY, Measure


def legend(groups: Sequence[Group]) -> Markup:
    """Name, colour, dashes and shape of every group, for all charts of the comparison."""
    items = []
    for g in groups:
        count = f" ({len(g.runs)} seeds)" if len(g.runs) > 1 else ""
        items.append(element("li", sample(g.style, hollow=g.static), g.name + count, data_style=g.style))
    return element("ul", *items, class_="legend")


def curves(groups: Sequence[Group], hovers: int) -> list[Markup]:
    """A chart for each measure that was logged, with a band around the mean of several seeds."""
    charts = [(measure, _overlaid(groups, measure, hovers)) for measure in (*ACCURACIES, COST, *STABILITY)]
    return [figure(measure.title, chart, measure.words) for measure, chart in charts if chart]


def _overlaid(groups: Sequence[Group], measure: Measure, hovers: int) -> Markup | None:
    epochs = last_epoch([run for g in groups for run in g.runs])
    lines = []
    for g in groups:
        values, band = g.curve(lambda run: run.series(measure.figure, measure.scale))
        if any(v is not None for v in values):
            room = [None] * (epochs - len(values))
            padded = (band[0] + room, band[1] + room) if band else None
            lines.append(Line(g.name, values + room, g.style, padded))
    if not lines:
        return None
    return line_chart(
        [float(e) for e in range(1, epochs + 1)],
        lines,
        y_title=measure.y_title,
        show=measure.show,
        bounds=measure.bounds,
        labels=False,
        hovers=hovers,
    )
