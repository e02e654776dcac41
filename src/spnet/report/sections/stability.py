"""How steady the decisions and the features are, epoch after epoch."""

from spnet.report.charts import Line, line_chart
from spnet.report.layout import figure
from spnet.report.markup import Markup
from spnet.report.numbers import significant
from spnet.report.run import Run
from spnet.report.sections.progress import one_decimal, phases

MEASURES = (
    (
        "evolution_kl",
        1.0,
        (0.0, None),
        "Feature evolution between stages",
        "evolution KL, nats",
        "KL divergence between the features of adjoining stages (pooled, softmax), mean over watched images and pairs "
        "of stages. Lower: features change less from stage to stage.",
    ),
    (
        "flips",
        100.0,
        (0.0, None),
        "Flipped decisions",
        "decisions flipped, %",
        "Share of the decisions on the same (at most 512) watched images that differ from the epoch before.",
    ),
    (
        "path_agreement",
        100.0,
        (None, 100.0),
        "Path agreement",
        "decisions that agree, %",
        "Share of the decisions that stay the same when the watched image is augmented.",
    ),
)


def stability(run: Run, hovers: int) -> list[Markup]:
    """A figure for each measure that was logged."""
    figures = []
    for name, scale, bounds, title, y_title, words in MEASURES:
        values = run.series(name, scale)
        if all(value is None for value in values):
            continue
        show = significant if name == "evolution_kl" else one_decimal
        drawn = line_chart(
            run.epochs,
            [Line("", values)],
            y_title=y_title,
            show=show,
            marks=phases(run),
            bounds=bounds,
            hovers=hovers,
        )
        figures.append(figure(title, drawn, words))
    return figures
