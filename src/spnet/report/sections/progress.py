"""Accuracy and cost over the epochs, the phases marked."""

from spnet.report.figures import Line, Mark, line_chart
from spnet.report.layout import figure
from spnet.report.markup import Markup
from spnet.report.measures import one_decimal
from spnet.report.run import Run, Series

WATCHED = {
    True: "validation: images held out of training, by the test rule",
    False: "probe: at most 512 of the training images, by the test rule. Nothing was held out, so this is "
    "no test of generalisation",
}
"""By whether the watched images were held out."""


def phases(run: Run) -> list[Mark]:
    """Where each phase begins; nothing for a single phase."""
    marks: list[Mark] = []
    for epoch, row in zip(run.epochs, run.rows, strict=True):
        name = row.phase
        if not marks or marks[-1].name != name:
            marks.append(Mark(epoch, name))
    return marks if len(marks) > 1 else []


def accuracy(run: Run, hovers: int) -> Markup:
    held_out = run.held_out
    lines = [
        Line("validation" if held_out else "probe", run.series(lambda row: row.accuracy), 0),
        Line("training", run.series(lambda row: row.train_accuracy), 1),
    ]
    words = f"{WATCHED[held_out]}; training: mean over the epoch's batches, augmentation and noise included."
    drawn = line_chart(run.epochs, lines, y_title="accuracy, %", show=one_decimal, marks=phases(run), hovers=hovers)
    return figure("Accuracy", drawn, words[0].upper() + words[1:])


def cost(run: Run, hovers: int) -> Markup:
    lines = [
        Line("test rule", run.series(lambda row: row.cost_ratio, 100), 0),
        Line("in training", training_cost(run), 1),
    ]
    budget = run.config.training.budget
    drawn = line_chart(
        run.epochs,
        [line for line in lines if any(v is not None for v in line.values)],
        y_title="cost, % of the static network's MACs",
        show=one_decimal,
        marks=phases(run),
        level=(100 * budget, f"budget {100 * budget:g} %") if budget else None,
        hovers=hovers,
    )
    words = "Test rule: arg-max decisions on the watched images, stage heads counted. In training: drawn with noise."
    return figure("Cost", drawn, words + (" The budget is met after the last epoch, by calibration." if budget else ""))


def training_cost(run: Run) -> Series:
    """Mean MACs while training as a percentage of static."""
    static = next((row.macs_static for row in run.rows if row.macs_static), None)
    return run.series(lambda row: row.train_macs_mean, 100 / static) if static else [None] * len(run.rows)
