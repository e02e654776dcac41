"""How steady the decisions and the features are, epoch after epoch."""

from spnet.report.figures import Line, line_chart
from spnet.report.layout import figure
from spnet.report.markup import Markup
from spnet.report.measures import STABILITY
from spnet.report.run import Run
from spnet.report.sections.progress import phases


def stability(run: Run, hovers: int) -> list[Markup]:
    """A figure for each measure that was logged."""
    figures = []
    for measure in STABILITY:
        values = run.series(measure.figure, measure.scale)
        if any(value is not None for value in values):
            drawn = line_chart(
                run.epochs,
                [Line("", values)],
                y_title=measure.y_title,
                show=measure.show,
                marks=phases(run),
                bounds=measure.bounds,
                hovers=hovers,
            )
            figures.append(figure(measure.title, drawn, measure.words))
    return figures
