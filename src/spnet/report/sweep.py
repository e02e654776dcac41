"""A sweep as a table and as a picture: accuracy against cost, one line for each way to spend less."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spnet.files import write_json, write_text
from spnet.inference.sweep import EXIT_BUDGET
from spnet.report.figures import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "sweep.json"
HEAD = (
    "asked %", "exit at", "new BN", "calibrated %", "accuracy %", "MMACs", "GFLOPs", "% of static", "off by %",
    "exec. rate", "paths", "note",
)  # fmt: skip
LINES: dict[tuple[bool, bool, bool], str] = {
    (True, False, False): "budget",
    (True, False, True): "budget, batch norm re-estimated",
    (False, True, False): "early exit",
    (True, True, False): f"early exit and budget {EXIT_BUDGET:g}",
}
"""(has a budget, has an exit, re-estimated) -> name of the line."""


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Head and one list of cells a row; what was missed shows the reason in the last."""
    return [[*HEAD], *map(_cells, rows)]


def _cells(row: dict[str, Any]) -> list[str]:
    budget, confidence = row["budget"], row["exit_confidence"]
    asked = [
        "" if budget is None else f"{100 * budget:.0f}",
        "" if confidence is None else f"{confidence:g}",
        "yes" if row["reestimated"] else "",
    ]
    if "missed" in row:
        return [*asked, *[""] * (len(HEAD) - len(asked) - 1), f"missed: {row['missed']}"]
    cost, error, shares = row["calibration_cost"], row["cost_error"], row["exit_shares"]
    return [
        *asked,
        "" if cost is None else f"{100 * cost:.1f}",
        f"{row['accuracy']:.2f}",
        f"{row['macs_mean'] / 1e6:.3f}",
        f"{row['gflops_mean']:.5f}",
        f"{100 * row['cost_ratio']:.1f}",
        "" if error is None else f"{100 * error:+.1f}",
        f"{row['execution_rate']:.3f}",
        str(row["distinct_paths"]),
        ""
        if shares is None
        else f"left by {row.get('exit_by', 'stage')}: {' / '.join(f'{100 * share:.0f}' for share in shares)} %",
    ]


def title(result: dict[str, Any]) -> str:
    name = "+".join(Path(run).name for run in result["run"].split("+"))
    return f"{result['label']}, {name}: accuracy against cost on {result['n']} test images"


def text(result: dict[str, Any]) -> str:
    """The table with aligned columns."""
    table = cells(result["sweep"])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join([*(cell.rjust(width) for cell, width in zip(line, widths[:-1], strict=False)), line[-1]]).rstrip()
        for line in table
    ]
    return "\n".join([f"{title(result)}  (executor {result['executor']}, {result['threads']} threads)", "", *lines])


@theme.styled()
def picture(result: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    for style, (kind, name) in enumerate(LINES.items()):
        mine = [row for row in result["sweep"] if "missed" not in row and _kind(row) == kind]
        mine.sort(key=lambda row: row["cost_ratio"])
        if mine:
            x, y = [100 * row["cost_ratio"] for row in mine], [row["accuracy"] for row in mine]
            axes.plot(x, y, linestyle=theme.dash(style), marker=theme.marker(style), markersize=5, label=name)
    if axes.lines:
        axes.axvline(100, color=theme.INKS["soft"], linewidth=1, linestyle=":", label="every block runs")
        axes.legend()
    axes.set(xlabel=theme.COST, ylabel=theme.ACCURACY, title=title(result))
    return figure


def _kind(row: dict[str, Any]) -> tuple[bool, bool, bool]:
    return row["budget"] is not None, row["exit_confidence"] is not None, row["reestimated"]


def write(result: dict[str, Any], out: Path) -> None:
    """Write sweep.json, sweep.md, sweep.svg and sweep.png."""
    from spnet.report.tables import markdown

    write_json(out / FILE, result)
    made = result["made_with"]
    how = (
        f"Calibrated on {result['calibration_images']} training images, no label read. Every point starts from the "
        "same network and reads the test images once; a point picked here by its accuracy is selected on them. MMACs: "
        "million multiply-adds an image: stem, options run, routers, heads that ran; GFLOPs = 2 x GMACs. off by: cost "
        "on the test images against the share asked for. new BN: batch-norm statistics estimated anew under the "
        "calibrated paths."
    )
    by = (
        f"spnet {made['spnet']} {made['commit']}, torch {made['torch']}, {made['hardware']}, {made['threads']} "
        f"threads, {made['precision']}, executor {result['executor']}."
    )
    table = markdown(cells(result["sweep"]))
    write_text(out / "sweep.md", f"## {title(result)}\n\n{table}\n{how}\n\n{by}\n")
    theme.save(out / "sweep", picture(result))
