"""What was run and what came out: headline figures, before and after calibration, what the figures were made with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spnet.report.command import command
from spnet.report.layout import Cell, facts, note, table, warning
from spnet.report.markup import Markup, element, join
from spnet.report.numbers import duration, finite, fixed, mmacs, percent_of, standard_error
from spnet.report.run import Run
from spnet.runs.record import student_passes


@dataclass(frozen=True)
class Column:
    """A figure of an evaluation: its head with the unit, and how it is taken and written."""

    head: str
    value: Callable[[dict[str, Any]], Any]
    show: Callable[[Any], str]


def _column(head: str, name: str, digits: int, scale: float = 1.0) -> Column:
    def value(record: dict[str, Any]) -> float | None:
        known = finite(record.get(name))
        return None if known is None else scale * known

    return Column(head, value, lambda known: fixed(known, digits))


COLUMNS = (
    _column("accuracy, %", "accuracy", 2),
    _column("cost, MMACs", "macs_mean", 3, 1e-6),
    _column("cost, GFLOPs", "gflops_mean", 5),
    _column("cost, % of static", "cost_ratio", 1, 100),
    _column("blocks run, %", "execution_rate", 1, 100),
    _column("distinct paths", "distinct_paths", 0),
    _column("shuffled paths, %", "accuracy_shuffled_paths", 2),
    _column("fixed path, %", "accuracy_fixed_path", 2),
    _column("cost of the fixed path, % of static", "cost_ratio_fixed_path", 1, 100),
)
STEPS = (("last", "as trained"), ("calibrated", "calibrated"), ("reestimated", "calibrated, batch norm re-estimated"))


def headline(run: Run) -> Markup:
    """The figures that count, large; then all of them in a table."""
    absent = [note(sentence) for sentence in run.missing]
    if not run.routed:
        absent.append(note("A static network: every block runs for every image; nothing is decided."))
    missed = [warning("Not calibrated: ", sentence) for sentence in run.missed]
    return element("header", _tiles(run) if run.final else None, *absent, *missed, _steps(run), provenance(run))


def _tiles(run: Run) -> Markup:
    final = run.final
    error = standard_error(final.get("accuracy"), final.get("n"))
    spread = f"± {error:.1f}, " if error is not None else ""
    tiles = [
        ("test accuracy", fixed(final.get("accuracy"), 2, " %"), f"{spread}n = {fixed(final.get('n'), 0)}"),
        (
            "cost per image",
            percent_of(final.get("cost_ratio")),
            f"of the static network: {fixed(mmacs(final.get('macs_mean')), 3)} MMACs = "
            f"{fixed(final.get('gflops_mean'), 5)} GFLOPs",
        ),
        ("distinct paths", fixed(final.get("distinct_paths"), 0), f"of {fixed(final.get('n'), 0)} test images"),
    ]
    if not run.routed:
        tiles.pop()
    else:
        tiles += [
            (
                "shuffled paths",
                fixed(final.get("accuracy_shuffled_paths"), 2, " %"),
                "test accuracy with each image on another's path",
            ),
            (
                "one fixed path",
                fixed(final.get("accuracy_fixed_path"), 2, " %"),
                f"for all: test accuracy at {percent_of(final.get('cost_ratio_fixed_path'))} of static",
            ),
        ]
    tiles.append(("training", duration(run.seconds), f"{fixed(student_passes(run.result), 0)} student passes"))
    boxes = [
        element("div", element("dt", name), element("dd", element("b", figure), element("span", words)))
        for name, figure, words in tiles
    ]
    return element("dl", *boxes, class_="tiles")


def _steps(run: Run) -> Markup | None:
    """The same figures before and after calibration, and at further budgets."""
    there = [(words, run.evaluation(name)) for name, words in STEPS if run.evaluation(name)]
    further = [(f"calibrated to {percent_of(record.get('budget'))}", record) for record in run.budgets]
    if not run.routed or not there:
        return None
    heads = ["network", *(column.head for column in COLUMNS)]
    rows = [[Cell(words), *(Cell(c.show(c.value(record))) for c in COLUMNS)] for words, record in [*there, *further]]
    return table(heads, rows, caption=_about_steps(run, there[-1][0]))


def _about_steps(run: Run, in_folder: str) -> str:
    count = fixed(run.final.get("n"), 0)
    words = f"Test figures (n = {count}); 1 MAC = 2 FLOPs. In the folder is the network '{in_folder}'. "
    calibrated = run.evaluation("calibrated")
    if not calibrated:
        return words + "Its decision thresholds are as trained."
    aim, reached = percent_of(run.config.training.budget), percent_of(calibrated.get("calibration_cost"))
    return words + (
        "Calibration shifts the decision thresholds on training images, labels unused, stage heads not counted: "
        f"aim {aim} of static, reached {reached}."
    )


def provenance(run: Run) -> Markup:
    """Everything a figure must carry: hardware, versions, commit, command."""
    made = run.result.get("made_with") or {}
    versions = [f"{name} {made[name]}" for name in ("spnet", "torch", "python") if made.get(name)]
    if not versions and run.facts.get("spnet"):
        versions = [f"spnet {run.facts['spnet']}"]
    machine = [str(made["hardware"])] if made.get("hardware") else []
    machine += [f"{made['threads']} thread{'s' if made['threads'] != 1 else ''}"] if made.get("threads") else []
    machine += [str(made["precision"])] if made.get("precision") else []
    best = run.result.get("best_epoch") or {}
    chosen = (
        f"{best.get('epoch')} ({fixed(best.get('validation_accuracy'))} %); not used for the figures above"
        if best
        else None
    )
    return facts(
        [
            ("hardware", ", ".join(machine)),
            ("versions", ", ".join(versions)),
            ("commit", str(made.get("commit") or "")),
            ("best epoch by validation", chosen),
            ("run", join(element("code", str(run.folder)), f", config {run.config.hash}")),
            ("command (from config.json)", element("code", command(run.config, run.started_from))),
        ]
    )
