"""Small words that several verbs say."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spnet.runs.record import Evaluation


def paths(count: int) -> str:
    """`1 path`, `12 distinct paths`."""
    return "1 path" if count == 1 else f"{count} distinct paths"


def useless(figures: "Evaluation", remedy: str) -> list[str]:
    """In words, when the decisions of a network win nothing; `figures` are those of its evaluation."""
    if figures.execution_rate == 1:
        words = "nothing is skipped: every block runs for every image."
    elif figures.cost_ratio >= 1:
        words = "nothing is saved: the routers cost as much as the blocks they skip."
    elif figures.distinct_paths == 1:
        words = "every image takes the same path: no decision depends on the image."
    else:
        return []
    return [f"note: {words} {remedy}"]
