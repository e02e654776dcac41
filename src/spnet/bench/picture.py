"""The picture of a bench: speed-up over the fastest static network against cost, beside what the multiply-adds
promise."""

import io
from pathlib import Path
from typing import Any

from spnet.files import write_bytes


def draw(result: dict[str, Any], file: Path) -> bool:
    """One panel per (threads, batch); forced rates are joined, the network's own decisions a point of their own.

    Of a single rate there is no curve: nothing is drawn, and False returned.
    """
    if all(len({row["rate"] for row in record["dynamic"]}) < 2 for record in result["records"]):
        return False
    from matplotlib.figure import Figure

    records = result["records"]
    figure = Figure(figsize=(3.2 * len(records), 3.2), layout="constrained")
    for position, record in enumerate(records, 1):
        axes = figure.add_subplot(1, len(records), position)
        rows = sorted(record["dynamic"], key=lambda r: r["cost"])
        across = [100 * r["cost"] for r in rows]
        axes.plot(across, [r["mac_ideal"] for r in rows], "+:", color="gray", label="by multiply-adds")
        for name in dict.fromkeys(r["variant"] for r in rows):
            for own, marker in ((False, "o-"), (True, "*")):
                mine = [r for r in rows if r["variant"] == name and isinstance(r["rate"], str) == own]
                label = f"{name}, own decisions" if own else name
                if mine:
                    at = [100 * r["cost"] for r in mine]
                    axes.plot(at, [r["speed_up"] for r in mine], marker, markersize=9 if own else 5, label=label)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_title(f"batch {record['batch']}, {record['threads']} thread(s)", fontsize=9)
        axes.set_xlabel("multiply-adds, % of static")
        if position == 1:
            axes.set_ylabel("speed-up over fastest static")
            axes.legend(fontsize=7)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150, format="png")
    write_bytes(file, drawn.getvalue())
    return True
