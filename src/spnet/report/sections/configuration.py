"""Every setting of the run, those that differ from their default marked."""

from spnet.report.command import written
from spnet.report.layout import Cell, folded, table
from spnet.report.markup import Child, Markup, element
from spnet.report.run import Run


def configuration(run: Run) -> Markup:
    config = run.config
    names = ("method", "wrapper", "backbone", "data")
    rows = [[Cell(name), Cell(_shown(getattr(config, name))), Cell(" ")] for name in names]
    for chosen in config.parts:
        usual = type(chosen)()
        for name in vars(usual):
            value, default = getattr(chosen, name), getattr(usual, name)
            shown: Child = _shown(value)
            if value != default:
                shown = element("b", shown)
            rows.append([Cell(name), Cell(shown), Cell(_shown(default))])
    heads = ["setting", "value", "default"]
    words = "Bold: differs from the default."
    return folded("Full configuration", table(heads, rows, caption=words))


def _shown(value: object) -> str:
    return written(value) or "(empty)"
