"""Several runs beside each other in pictures: the curves of training over each other, and the legend of all charts."""

from collections.abc import Callable, Sequence

from spnet.report.charts import SHAPES, Line, line_chart
from spnet.report.charts.frame import colour, dash
from spnet.report.groups import Group, last_epoch
from spnet.report.layout import figure
from spnet.report.markup import Markup, element
from spnet.report.numbers import significant
from spnet.report.run import Run, Series
from spnet.report.sections.progress import one_decimal


def legend(groups: Sequence[Group]) -> Markup:
    """Name, colour, dashes and shape of every group, for all charts of the comparison."""
    items = []
    for g in groups:
        stroke = element("path", d="M2 8H34", stroke=colour(g.style), stroke_dasharray=dash(g.style), class_="curve")
        fill = "var(--paper)" if g.static else colour(g.style)
        shape = element("path", d=SHAPES[g.style % len(SHAPES)](18, 8), fill=fill, stroke=colour(g.style))
        sample = element("svg", stroke, shape, viewBox="0 0 36 16", aria_hidden="true")
        count = f" ({len(g.runs)} seeds)" if len(g.runs) > 1 else ""
        items.append(element("li", sample, g.name + count, data_style=g.style))
    return element("ul", *items, class_="legend")


def curves(groups: Sequence[Group], hovers: int) -> list[Markup]:
    """A chart for each thing that was logged, with a band around the mean of several seeds."""
    figures = []
    for name in ("validation_accuracy", "probe_accuracy"):
        words = (
            "by the test rule, on images held out of training"
            if name.startswith("v")
            else "on 512 of the training images"
        )
        title = name.replace("_", " ").capitalize()
        chart = _overlaid(groups, lambda run, name=name: run.series(name), "accuracy, %", one_decimal, hovers)
        figures.append(chart and figure(title, chart, f"Accuracy {words}."))
    plain = (
        (
            "cost_ratio",
            100.0,
            "Cost",
            "cost, % of static",
            one_decimal,
            "Watched images, test rule, before any calibration.",
        ),
        (
            "evolution_kl",
            1.0,
            "Feature evolution between stages",
            "evolution KL, nats",
            significant,
            "Lower is steadier.",
        ),
        (
            "flips",
            100.0,
            "Flipped decisions",
            "decisions flipped, %",
            one_decimal,
            "Since the epoch before, same images.",
        ),
        ("path_agreement", 100.0, "Path agreement", "decisions that agree, %", one_decimal, "Under augmentation."),
    )
    for name, scale, title, y_title, show, words in plain:
        chart = _overlaid(groups, lambda run, name=name, scale=scale: run.series(name, scale), y_title, show, hovers)
        figures.append(chart and figure(title, chart, words))
    return [found for found in figures if found]


def _overlaid(
    groups: Sequence[Group], series: Callable[[Run], Series], y_title: str, show: Callable[[float], str], hovers: int
) -> Markup | None:
    epochs = last_epoch([run for g in groups for run in g.runs])
    lines = []
    for g in groups:
        values, band = g.curve(series)
        if any(v is not None for v in values):
            room = [None] * (epochs - len(values))
            padded = (band[0] + room, band[1] + room) if band else None
            lines.append(Line(g.name, values + room, g.style, padded))
    if not lines:
        return None
    return line_chart(
        [float(e) for e in range(1, epochs + 1)], lines, y_title=y_title, show=show, labels=False, hovers=hovers
    )
