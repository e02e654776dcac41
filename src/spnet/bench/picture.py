"""The picture of a bench: speed-up over the fastest static network against cost, beside what the multiply-adds
promise."""

from pathlib import Path
from typing import Any

from spnet.report.figures import theme


@theme.styled()
def draw(result: dict[str, Any], file: Path) -> bool:
    """One panel per (threads, batch); forced rates are joined, the network's own decisions a point of their own.

    Of a single rate there is no curve: nothing is drawn, and False returned.
    """
    if all(len({row["rate"] for row in record["dynamic"]}) < 2 for record in result["records"]):
        return False
    from matplotlib.figure import Figure

    records = result["records"]
    figure = Figure(figsize=(3.6 * len(records), 3.6), layout="constrained")
    for position, record in enumerate(records, 1):
        axes = figure.add_subplot(1, len(records), position)
        rows = sorted(record["dynamic"], key=lambda r: r["cost"])
        across = [100 * r["cost"] for r in rows]
        axes.plot(
            across, [r["mac_ideal"] for r in rows], "+:", color=theme.INKS["soft"], label="ideal, by multiply-adds"
        )
        for style, name in enumerate(dict.fromkeys(r["variant"] for r in rows)):
            for own, marker, dashes in ((False, theme.marker(style), theme.dash(style)), (True, "*", "")):
                mine = [r for r in rows if r["variant"] == name and isinstance(r["rate"], str) == own]
                label = f"{name}, own decisions" if own else name
                if mine:
                    at = [100 * r["cost"] for r in mine]
                    axes.plot(
                        at, [r["speed_up"] for r in mine], linestyle=dashes, marker=marker, color=theme.colour(style),
                        markersize=9 if own else 5, label=label,
                    )  # fmt: skip
        axes.axhline(1, color=theme.INKS["ink"], linewidth=0.8, label="the fastest static network, as accurate")
        rounds = max(row["rounds"] for row in rows)
        threads = f"{record['threads']} thread{'s' if record['threads'] > 1 else ''}"
        axes.set_title(f"batch {record['batch']}, {threads}, n = {rounds} rounds")
        axes.set_xlabel("multiply-adds, % of static")
        if position == 1:
            axes.set_ylabel("speed-up over the fastest static network, times")
            axes.legend()
    theme.save(file.with_suffix(""), figure, (file.suffix[1:],))
    return True
