"""The picture of a bench: speed-up over the fastest static network against execution rate, beside what the MACs
promise."""

from pathlib import Path
from typing import Any

from spnet.files import write_atomically


def draw(result: dict[str, Any], file: Path) -> None:
    """One panel per (threads, batch); the network's own decisions are left out, as they have no rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    records = result["records"]
    figure = Figure(figsize=(3.2 * len(records), 3.2), layout="constrained")
    for position, record in enumerate(records, 1):
        axes = figure.add_subplot(1, len(records), position)
        rows = sorted((r for r in record["dynamic"] if not isinstance(r["rate"], str)), key=lambda r: r["rate"])
        names = list(dict.fromkeys(r["variant"] for r in rows))
        first = [r for r in rows if r["variant"] == names[0]] if names else []
        axes.plot(
            [r["rate"] for r in first], [r["mac_ideal"] for r in first], ":", color="gray", label="by multiply-adds"
        )
        for name in names:
            mine = [r for r in rows if r["variant"] == name]
            axes.plot([r["rate"] for r in mine], [r["speed_up"] for r in mine], "o-", label=name)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_title(f"batch {record['batch']}, {record['threads']} thread(s)", fontsize=9)
        axes.set_xlabel("execution rate")
        if position == 1:
            axes.set_ylabel("speed-up over fastest static")
            axes.legend(fontsize=7)
    write_atomically(file, lambda path: figure.savefig(path, dpi=150, format="png"))
