"""Which blocks run: the execution rate of every block over the epochs, and in words where routing has collapsed."""

from collections.abc import Sequence
from itertools import accumulate

from spnet.report.figures import heat_map
from spnet.report.layout import figure, note, section, warning
from spnet.report.markup import Markup
from spnet.report.run import Run


def execution_rates(run: Run, columns: int) -> Markup | None:
    """columns: with more epochs than this a column is the mean of several."""
    by_epoch = run.block_rates
    blocks = max(map(len, by_epoch), default=0)
    if not blocks or not run.routed:
        return None
    every = -(-len(by_epoch) // columns)
    groups = [by_epoch[start : start + every] for start in range(0, len(by_epoch), every)]
    grid = [[_mean([rates[block] for rates in group]) for group in groups] for block in range(blocks)]
    epochs = run.epochs
    spans = [(int(epochs[i * every]), int(epochs[min(len(epochs), (i + 1) * every) - 1])) for i in range(len(groups))]
    names = [str(a) if a == b else f"{a}-{b}" for a, b in spans]
    ends = list(accumulate(run.stage_lengths(blocks)))[:-1]
    drawn = heat_map(
        grid,
        [str(block + 1) for block in range(blocks)],
        names,
        row="block",
        column="epoch",
        numbered=(spans[0][0], every),
        row_breaks=ends,
    )
    words = (
        "Share of the watched images for which each block ran, by the test rule. The horizontal lines part the stages. "
        "Blocks are counted from 1."
    )
    if every > 1:
        words += f" A column is the mean of {every} epochs."
    return figure("Execution rate of every block", drawn, words)


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def collapse(run: Run) -> Markup | None:
    """Blocks about which nothing is decided any more, after the last epoch."""
    at_end = run.at_end
    if not run.routed or at_end.always_run is None:
        return None
    blocks = max(map(len, run.block_rates), default=0)
    stuck = sentences(at_end.always_run, at_end.always_skipped or (), blocks)
    return section("Collapse", *stuck)


def sentences(always_run: Sequence[int], always_skipped: Sequence[int], blocks: int) -> list[Markup]:
    """always_run, always_skipped: indices counted from 0."""
    when = "after the last epoch, before any calibration"
    if not always_run and not always_skipped:
        words = "No block has collapsed: each router runs its block for some watched images and not for others"
        return [note(f"{words} ({when}).")]
    parts = []
    for stuck, whom in ((always_run, "for every watched image"), (always_skipped, "for no watched image")):
        if stuck:
            listed = ", ".join(str(block + 1) for block in stuck)
            noun = "block" if len(stuck) == 1 else "blocks"
            many = f"{len(stuck)} of {blocks} blocks" if blocks else f"{len(stuck)} {noun}"
            parts.append(warning(f"{many} ran {whom} ({when}): {noun} {listed}. Nothing is decided there."))
    if blocks and len(always_run) + len(always_skipped) >= blocks:
        parts.append(warning("All blocks have collapsed: every image takes the same path, as in a smaller network."))
    return parts
