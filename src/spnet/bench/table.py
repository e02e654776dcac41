"""The record of a bench as lines of text."""

from collections.abc import Mapping
from typing import Any

OWN = "own"
"""Instead of a rate: the network's own decisions."""


def describe(record: dict[str, Any]) -> str:
    """A few lines about one (threads, batch)."""
    static = ", ".join(f"{name} {row['ms']['median']:.2f}{_mark(row)}" for name, row in record["static"].items())
    lines = [f"threads {record['threads']}, batch {record['batch']}: static ms {static}"]
    lines += [line] if (line := _int8(record["static"])) else []
    for row in record["dynamic"]:
        realised = "" if row["realised"] is None else f", realised {100 * row['realised']:.0f} %"
        auto = f"; auto {row['auto']['runs']} {row['auto']['speed_up']:.2f}x" if "auto" in row else ""
        over = row.get("over_int8", row)
        int8 = "" if over["rival"] == row["rival"] else f", {over['speed_up']:.2f}x over {over['rival']}"
        rate = row["rate"] if row["rate"] == OWN else f"{100 * row['rate']:.0f} %"
        late = row["latency_ms"]
        lines.append(
            f"  {row['variant']:<13} rate {rate:>5}: {row['speed_up']:.2f}x over {row['rival']} "
            f"({row['cpu_speed_up']:.2f}x in CPU time){int8}, MACs {row['mac_ideal']:.2f}x{realised}; "
            f"{row['ms']['median']:.2f} ms, p50 {late['p50']:.2f} p90 {late['p90']:.2f} p99 {late['p99']:.2f}; "
            f"{row['compared']}/{row['rounds']} rounds clean, cpu {row['cpu']:.2f}, others {row['others']:.2f}{auto}"
        )
    if "break_even_cost" in record:
        lines.append(f"  skipping pays below a cost of {100 * record['break_even_cost']:.0f} % of static")
    return "\n".join(lines)


def _mark(row: Mapping[str, Any]) -> str:
    """Behind the time of a rival that does not count as equally accurate."""
    return "" if row.get("equal", True) else "*"


def _int8(static: Mapping[str, Mapping[str, Any]]) -> str:
    """The line that says how accurate int8 is; empty where it was not measured."""
    rivals = {name: row for name, row in static.items() if row.get("precision") == "int8"}
    if not rivals:
        return ""
    one = next(iter(rivals.values()))
    if one["accuracy"] is None:
        return "  * int8 without data: calibrated on what was timed, judged on nothing, so it never counts as equal"
    said = ", ".join(f"{name} {row['accuracy']:.2f} %{_mark(row)}" for name, row in rivals.items())
    starred = "; * not counted as equal" if not all(row["equal"] for row in rivals.values()) else ""
    return f"  accuracy on {one['test_images']} test images: fp32 {one['accuracy_fp32']:.2f} %, {said}{starred}"
