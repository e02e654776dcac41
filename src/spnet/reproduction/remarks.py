"""What a table has to say below it: budgets that were missed, static networks that win, rows of other machines."""

from collections.abc import Sequence

from spnet.reproduction.lines import Line


def missed(lines: Sequence[Line]) -> list[str]:
    """One sentence for every row with finished runs that no threshold brings to the row's budget."""
    return [
        f"{line.name}: {line.unmet} of {line.unmet + len(line.figures)} runs cannot be brought to this cost and are "
        "left out."
        for line in lines
        if line.unmet
    ]


def beaten_by_static(lines: Sequence[Line]) -> list[str]:
    """The dynamic rows that static networks of no more multiply-adds match or beat in mean accuracy over the seeds that
    both have: one sentence for the rows with the same rivals."""
    rivals = [line for line in lines if line.static]
    beaten: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        better = tuple(rival.name for rival in rivals if not line.static and _no_worse(rival, line))
        if better:
            beaten.setdefault(better, []).append(line.name)
    return [
        f"Matched or beaten in mean accuracy by a static network that costs no more ({', '.join(better)}): "
        f"{', '.join(names)}."
        for better, names in beaten.items()
    ]


def _no_worse(rival: Line, line: Line) -> bool:
    """Whether, over the seeds that both have, `rival` is as accurate for no more multiply-adds."""
    shared = rival.by_seed.keys() & line.by_seed.keys()
    if not shared:
        return False
    ours, theirs = rival.of(shared), line.of(shared)
    cheaper = (ours.mean(lambda f: f.macs_mean) or 0.0) <= (theirs.mean(lambda f: f.macs_mean) or 0.0)
    return cheaper and (ours.mean(lambda f: f.accuracy) or 0.0) >= (theirs.mean(lambda f: f.accuracy) or 0.0)


def made_differently(lines: Sequence[Line]) -> list[str]:
    """One sentence for each machine and precision, where the rows' runs were not all made on the same. Rows of the same
    runs at several budgets are named once."""
    first: dict[tuple[str, ...], Line] = {}
    for line in lines:
        first.setdefault(tuple(run.hash for run in line.row.runs), line)
    made: dict[tuple[str, str], list[str]] = {}
    for line in first.values():
        counts: dict[tuple[str, str], int] = {}
        for run_record in line.records:
            how = (run_record.made_with.hardware, run_record.made_with.precision)
            counts[how] = counts.get(how, 0) + 1
        for how, count in counts.items():
            part = line.name if len(counts) == 1 else f"{line.name} ({count} of {len(line.records)})"
            made.setdefault(how, []).append(part)
    if len(made) < 2:
        return []
    return [
        f"Made on {hardware} in {precision}: {', '.join(names)}."
        for (hardware, precision), names in sorted(made.items())
    ]
