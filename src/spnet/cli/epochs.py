"""An epoch in one line, while a training runs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spnet.runs.record import EpochRow

WIDTH = 79
"""Letters that a line may have: it then fits a terminal of 80 columns."""


def line(row: "EpochRow", epochs: int) -> str:
    """An epoch's figures: loss, accuracy in percent (`val`: held-out images, `probe`: training images), cost as a share
    of the static network's, distinct paths; `8 on, 2 off`: blocks that run for every image, and for none."""
    seconds = row.seconds
    words = [
        f"epoch {row.epoch:>3}/{epochs} {row.phase}",
        f"loss {row.loss:.4f}",
        f"{'val' if row.held_out else 'probe'} {row.accuracy:.2f}",
        f"cost {row.cost_ratio:.3f}",
        f"paths {row.distinct_paths}",
        f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s",
    ]
    always, never = len(row.always_run or ()), len(row.always_skipped or ())
    stuck = [f"{always} on, {never} off"] if row.phase != "static" and always + never else []
    forms = ("  ".join([*words, *stuck]), " ".join([*words, *stuck]), "  ".join(words), " ".join(words))
    return next((form for form in forms if len(form) <= WIDTH), forms[-1][:WIDTH])
