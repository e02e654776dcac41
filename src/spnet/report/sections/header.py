"""What was run and what came out: headline figures, before and after calibration, what the figures were made with."""

from collections.abc import Callable
from dataclasses import dataclass

from spnet.report.command import command
from spnet.report.layout import Cell, facts, note, table, warning
from spnet.report.markup import Markup, element, join
from spnet.report.numbers import duration, fixed, mmacs, percent_of, standard_error
from spnet.report.run import Run
from spnet.report.sections.answer import answer
from spnet.runs.record import Environment, Evaluation


@dataclass(frozen=True)
class Column:
    """A figure of an evaluation: its head with the unit, how it is taken, its digits, what it is multiplied by."""

    head: str
    value: Callable[[Evaluation], float]
    digits: int
    scale: float = 1.0

    def shown(self, figures: Evaluation) -> str:
        return fixed(self.scale * self.value(figures), self.digits)


COLUMNS = (
    Column("accuracy, %", lambda f: f.accuracy, 2),
    Column("cost, MMACs", lambda f: f.macs_mean, 3, 1e-6),
    Column("cost, GFLOPs", lambda f: f.gflops_mean, 5),
    Column("cost, % of static", lambda f: f.cost_ratio, 1, 100),
    Column("blocks run, %", lambda f: f.execution_rate, 1, 100),
    Column("distinct paths", lambda f: f.distinct_paths, 0),
    Column("shuffled paths, %", lambda f: f.accuracy_shuffled_paths, 2),
    Column("fixed path, %", lambda f: f.accuracy_fixed_path, 2),
    Column("cost of the fixed path, % of static", lambda f: f.cost_ratio_fixed_path, 1, 100),
)
STEPS = (("last", "as trained"), ("calibrated", "calibrated"), ("reestimated", "calibrated, batch norm re-estimated"))


def headline(run: Run) -> Markup:
    """The figures that count, large; then all of them in a table."""
    absent = [note(sentence) for sentence in run.missing]
    if not run.routed:
        absent.append(note("A static network: every block runs for every image; nothing is decided."))
    missed = [warning("Not calibrated: ", sentence) for sentence in run.missed]
    figures = [answer(run), _tiles(run)] if run.final.met else []
    return element("header", *figures, *absent, *missed, _steps(run), provenance(run))


def _tiles(run: Run) -> Markup:
    final = run.final
    error = standard_error(final.accuracy, final.n)
    spread = f"± {error:.1f}, " if error is not None else ""
    tiles = [
        ("test accuracy", fixed(final.accuracy, 2, " %"), f"{spread}n = {fixed(final.n, 0)}"),
        (
            "cost per image",
            percent_of(final.cost_ratio),
            f"of the static network: {fixed(mmacs(final.macs_mean), 3)} MMACs = {fixed(final.gflops_mean, 5)} GFLOPs",
        ),
        ("distinct paths", fixed(final.distinct_paths, 0), f"of {fixed(final.n, 0)} test images"),
    ]
    if not run.routed:
        tiles.pop()
    else:
        tiles += [
            (
                "shuffled paths",
                fixed(final.accuracy_shuffled_paths, 2, " %"),
                "test accuracy with each image on another's path",
            ),
            (
                "one fixed path",
                fixed(final.accuracy_fixed_path, 2, " %"),
                f"for all: test accuracy at {percent_of(final.cost_ratio_fixed_path)} of static",
            ),
        ]
    passes = fixed(run.result and run.result.passes, 0)
    tiles.append(("training", duration(run.seconds), f"{passes} student passes"))
    boxes = [
        element("div", element("dt", name), element("dd", element("b", figure), element("span", words)))
        for name, figure, words in tiles
    ]
    return element("dl", *boxes, class_="tiles")


def _steps(run: Run) -> Markup | None:
    """The same figures before and after calibration, and at further budgets."""
    there = [(words, figures) for name, words in STEPS if (figures := run.evaluation(name))]
    further = [(f"calibrated to {percent_of(figures.budget)}", figures) for figures in run.budgets]
    if not run.routed or not there:
        return None
    heads = ["network", *(column.head for column in COLUMNS)]
    rows = [[Cell(words), *(Cell(c.shown(figures)) for c in COLUMNS)] for words, figures in [*there, *further]]
    return table(heads, rows, caption=_about_steps(run, there[-1][0]))


def _about_steps(run: Run, in_folder: str) -> str:
    count = fixed(run.final.n, 0)
    words = f"Test figures (n = {count}); 1 MAC = 2 FLOPs. In the folder is the network '{in_folder}'. "
    calibrated = run.evaluation("calibrated")
    if not calibrated:
        return words + "Its decision thresholds are as trained."
    aim, reached = percent_of(run.config.training.budget), percent_of(calibrated.calibration_cost)
    return words + (
        "Calibration shifts the decision thresholds on training images, labels unused, stage heads not counted: "
        f"aim {aim} of static, reached {reached}."
    )


def provenance(run: Run) -> Markup:
    """Everything a figure must carry: hardware, versions, commit, command."""
    made = run.result.made_with if run.result else Environment(spnet=run.facts.spnet)
    known = {"spnet": made.spnet or run.facts.spnet, "torch": made.torch, "python": made.python}
    versions = [f"{name} {version}" for name, version in known.items() if version]
    threads = f"{made.threads} thread{'s' if made.threads != 1 else ''}" if made.threads else ""
    machine = filter(None, [made.hardware, threads, made.precision])
    best = run.result.best_epoch if run.result else None
    chosen = f"{best.epoch} ({fixed(best.validation_accuracy)} %); not used for the figures above" if best else None
    return facts(
        [
            ("hardware", ", ".join(machine)),
            ("versions", ", ".join(versions)),
            ("commit", made.commit),
            ("best epoch by validation", chosen),
            ("run", join(element("code", str(run.folder)), f", config {run.config.hash}")),
            ("command (from config.json)", element("code", command(run.config, run.started_from))),
        ]
    )
