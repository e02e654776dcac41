"""What training minimised: every weighted term and its share of the gradient; and how each stage classifies."""

from spnet.report.figures import Line, line_chart
from spnet.report.layout import figure
from spnet.report.markup import Markup
from spnet.report.measures import one_decimal
from spnet.report.numbers import finite, fixed, significant
from spnet.report.run import Run
from spnet.report.sections.progress import phases


def losses(run: Run, hovers: int) -> list[Markup]:
    figures = []
    terms = run.names_in(lambda row: row.losses)
    if terms:
        lines = [
            Line(name, run.series(lambda row, name=name: row.losses.get(name)), style)
            for style, name in enumerate(terms)
        ]
        drawn = line_chart(run.epochs, lines, y_title="weighted loss", log=True, marks=phases(run), hovers=hovers)
        figures.append(
            figure("Losses", drawn, "Each term with its weight, mean over the epoch; their sum is minimised.")
        )
    shares = run.names_in(lambda row: row.gradient_share)
    if shares:
        styles = {name: style for style, name in enumerate(dict.fromkeys([*terms, *shares]))}
        lines = [
            Line(name, run.series(lambda row, name=name: row.gradient_share.get(name), 100), styles[name])
            for name in shares
        ]
        drawn = line_chart(
            run.epochs,
            lines,
            y_title="share of the gradient, %",
            show=lambda value: one_decimal(value) if value >= 0.1 else significant(value, 1),
            bounds=(0.0, None),
            marks=phases(run),
            hovers=hovers,
        )
        words = "Norm of each weighted term's gradient over the sum of the norms, in the last step of the epoch."
        figures.append(figure("Gradient shares", drawn, words))
    return figures


def stage_accuracy(run: Run, hovers: int) -> Markup | None:
    lists = [row.stage_accuracy for row in run.rows]
    tested = run.final.stage_accuracy
    stages = max([*map(len, lists), len(tested)], default=0)
    if not stages:
        return None
    title = "Accuracy by stage"
    if stages == 1:
        return figure(
            title, None, "This network has one classifier, after the last stage: its accuracy is the one above."
        )
    lines = [
        Line(f"stage {s + 1}", [finite(found[s]) if s < len(found) else None for found in lists], s)
        for s in range(stages)
    ]
    words = "The classifier after each stage, on the watched images by the test rule."
    if tested:
        figures = ", ".join(f"stage {s + 1} {fixed(value)} %" for s, value in enumerate(tested))
        words += f" On the test set, at the end: {figures} (n = {fixed(run.final.n, 0)})."
    if not run.rows:
        return figure(title, None, words)
    drawn = line_chart(run.epochs, lines, y_title="accuracy, %", show=one_decimal, marks=phases(run), hovers=hovers)
    return figure(title, drawn, words)
