"""The answer before the reasons: how accurate, at what cost, how fast, against what; of one run, and of several."""

import shlex
from collections.abc import Sequence
from typing import Any

from spnet.errors import UserError
from spnet.report.groups import Group
from spnet.report.layout import note
from spnet.report.markup import Markup, element, join
from spnet.report.numbers import finite, fixed, percent_of
from spnet.report.run import Run
from spnet.report.sections.comparison import accuracy, cost

BENCH = "bench.json"
"""What `spnet bench RUN --out RUN` leaves in the run's folder."""
SENTENCES = 4
"""A comparison begins with so many at most."""


def answer(run: Run) -> Markup | None:
    """A paragraph of a few sentences; None for a run without test figures."""
    final = run.final
    if not final.met or finite(final.accuracy) is None:
        return None
    said = f"{fixed(final.accuracy)} % of {fixed(final.n, 0)} test images are right"
    if not run.routed:
        words = f"{said}, with every block run for each: {fixed(1e-6 * final.macs_mean, 3)} million multiply-adds."
        return element("p", words, class_="answer")
    share = finite(final.cost_ratio)
    words = f"{said}, for {percent_of(share)} of the multiply-adds of the same network with every block run."
    if share:
        words += f" By the multiply-adds it can be {1 / share:.2f} times as fast, no more."
    fixed_path = finite(final.accuracy_fixed_path)
    if fixed_path is not None:
        gain = final.accuracy - fixed_path
        words += (
            f" Choosing blocks by the image is worth {gain:+.2f} points over one path for all at "
            f"{percent_of(final.cost_ratio_fixed_path)}. Whether a smaller plain network does as well, a report of "
            "both runs shows."
        )
    return join(element("p", words, class_="answer"), _speed(run))


def against_static(groups: Sequence[Group]) -> Markup | None:
    """Each dynamic network beside the most accurate static one, of those on the page, that costs no more."""
    said = [words for g in groups if not g.static and (words := _beside(g, groups))]
    shown = [element("p", words, class_="answer") for words in said[:SENTENCES]]
    more = note(f"And {len(said) - SENTENCES} more: see the table and the chart.") if len(said) > SENTENCES else None
    return join(*shown, more) if shown else None


def _beside(g: Group, groups: Sequence[Group]) -> str:
    """A sentence; empty for a group without test figures."""
    own, price = g.summary(accuracy), g.summary(cost)
    if own is None or price is None:
        return ""
    begin = f"{g.name} is right on {fixed(own[0])} % of the test images at {fixed(price[0], 3)} million multiply-adds"
    rivals = []
    for rival in groups:
        found, costs = rival.summary(accuracy), rival.summary(cost)
        if rival.static and rival.runs[0].data == g.runs[0].data and found and costs and costs[0] <= price[0]:
            rivals.append((found[0], rival.name))
    if not rivals:
        return f"{begin}; no static network here costs as little or less."
    best, name = max(rivals)
    return f"{begin}: {own[0] - best:+.2f} points against {name}, the best static network here that costs no more."


def _speed(run: Run) -> Markup:
    """What a bench in the run's folder has measured, or how to get one."""
    from spnet.files import read_json

    folder = str(run.folder)
    how = element("code", shlex.join(["spnet", "bench", folder, "--rates", "own", "--out", folder]))
    if not (run.folder / BENCH).is_file():
        return note("Milliseconds were not measured yet; they stand here after ", how, ".")
    try:
        record = read_json(run.folder / BENCH)
        told = [words for cell in record["records"] if (words := _measured(cell))]
        made = record["made_with"]["hardware"]
    except (UserError, KeyError, TypeError, AttributeError, ValueError):
        return note(f"{BENCH} in the run's folder is damaged or of another kind: measure again with ", how, ".")
    if not told:
        return note(f"{BENCH} in the run's folder timed no own decisions: ", how, " does.")
    return note("Measured: ", "; ".join(told), f", on {made}.")


def _measured(cell: dict[str, Any]) -> str:
    """One (threads, batch), by the network's own decisions; empty where those were not timed."""
    rows = [row for row in cell["dynamic"] if row["rate"] == "own" and row["variant"] == "engine"]
    if not rows:
        return ""
    (row,) = rows
    shared = f"{row['ms']['median'] / cell['batch']:.3g} ms an image in batches of {cell['batch']}"
    return (
        f"{shared} on {cell['threads']} thread(s), {row['speed_up']:.2f} times as fast as the fastest static network "
        f"that is as accurate ({row['rival']}; n = {row['rounds']} rounds, {row['kept']} undisturbed)"
    )
