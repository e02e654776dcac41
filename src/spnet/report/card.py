"""The card of a network that ships: what it is, measured against what, made with what, fit for what. Markdown.

Every number comes from the records of finished runs.
"""

from collections.abc import Sequence

from spnet.data.terms import TERMS
from spnet.errors import UserError
from spnet.report.command import command
from spnet.report.numbers import duration, fixed, mmacs, percent_of, standard_error
from spnet.report.tables import markdown
from spnet.report.wrap import wrapped
from spnet.runs.config import RunConfig
from spnet.runs.record import RunResult

ALIKE = 1.02
"""Costs within 2 % are one budget."""


def card(
    name: str,
    config: RunConfig,
    classes: Sequence[str],
    record: RunResult,
    static: tuple[str, RunResult] | None = None,
    ladder: Sequence[RunResult] = (),
    earlier: Sequence[RunResult] = (),
) -> str:
    """The card as Markdown.

    Args:
        name: what the network is called in the package.
        config: its run, `data` without a path.
        record: its result.
        static: name and record of the static network it is measured by.
        ladder: records of smaller static networks.
        earlier: records of the trainings this one goes on from, the first of them first.

    Raises:
        UserError: the terms of its data are not known.
    """
    if config.data not in TERMS:
        raise UserError(f"the terms of '{config.data}' are not known: only networks of {', '.join(TERMS)} can ship.")
    routed = record.routed
    parts = [f"# {name}", what(config, record, routed), _use(name, config)]
    parts += [_budgets(record), _controls(record)] if routed else []
    parts += [_rivals(name, record, static, ladder, earlier)] if static or ladder else []
    parts += [_training(config, record), f"## Data\n\n{TERMS[config.data]}", _limits(name, classes)]
    return wrapped("\n\n".join(part.strip() for part in parts)) + "\n"


def what(config: RunConfig, record: RunResult, routed: bool) -> str:
    """What the network is, how accurate and how dear."""
    final = record.final
    error = fixed(standard_error(final.accuracy, final.n))
    lines = [
        f"`{config.label}` on {config.backbone}, trained on {config.data}.",
        "",
        f"- accuracy: **{final.accuracy:.2f} %** of the {final.n:,} test images (standard error {error} points); "
        "one run, last epoch, test images read once, after training",
        f"- cost: **{fixed(mmacs(final.macs_mean), 3)} MMACs = {final.gflops_mean:.5f} GFLOPs an image = "
        f"{percent_of(final.cost_ratio)} of static** ({fixed(mmacs(final.macs_static), 3)} MMACs); "
        "MMACs are million multiply-adds, GFLOPs count two operations for each",
    ]
    paths = f"- execution rate {final.execution_rate:.3f}, {final.distinct_paths} distinct paths"
    return "\n".join([*lines, paths] if routed else lines)


def _use(name: str, config: RunConfig) -> str:
    lines = [
        f"spnet predict {name} IMAGE...",
        f"spnet eval {name}   # finds {config.data} through --data or SPNET_DATA",
        f"python -c \"import spnet; net = spnet.load('{name}')\"",
    ]
    return "## Use\n\n```\n" + "\n".join(lines) + "\n```"


def _budgets(record: RunResult) -> str:
    """Accuracy over cost: as trained, and with the thresholds shifted to each budget."""
    met = [("as trained", record.last), *((str(figures.budget), figures) for figures in record.asked if figures.met)]
    cells = [["aim, share of static", "accuracy %", "MMACs", "GFLOPs", "% of static", "shuffled %", "fixed path %"]]
    for aim, figures in sorted(met, key=lambda pair: -pair[1].cost_ratio):
        row = [aim, fixed(figures.accuracy), fixed(mmacs(figures.macs_mean), 3)]
        row += [fixed(figures.gflops_mean, 5), fixed(100 * figures.cost_ratio, 1)]
        row += [fixed(figures.accuracy_shuffled_paths), fixed(figures.accuracy_fixed_path)]
        cells.append(row)
    missed = "".join(f"\nNot met: {figures.missed}\n" for figures in record.asked if figures.missed)
    words = "One network: a shift of its decision threshold, set on training images without labels, moves its cost."
    return f"## Budgets\n\n{words}\n\n{markdown(cells)}{missed}"


def _controls(record: RunResult) -> str:
    """What the decisions win, at the cost the network ships with."""
    final = record.final
    shuffled, one = final.accuracy_shuffled_paths, final.accuracy_fixed_path
    share = percent_of(final.cost_ratio_fixed_path)
    return "\n".join(
        [
            "## Controls\n",
            f"- every image on another's path: {shuffled:.2f} %, {_verdict(final.accuracy - shuffled)} its own",
            f"- every image on one path: {one:.2f} % at {share} of static, {_verdict(final.accuracy - one)} its own; "
            "neither is fine-tuned",
        ]
    )


def _verdict(ahead: float) -> str:
    """How a network stands to what leads it by so many points."""
    return "equal to" if round(ahead, 2) == 0 else f"{abs(ahead):.2f} points {'below' if ahead > 0 else 'above'}"


def _rivals(
    name: str,
    record: RunResult,
    static: tuple[str, RunResult] | None,
    ladder: Sequence[RunResult],
    earlier: Sequence[RunResult],
) -> str:
    """Whether taking a static network, or a smaller one, would have done better."""
    final = record.final
    said = []
    if static:
        called, rival = static[0], static[1].final
        ahead = final.accuracy - rival.accuracy
        verb = "equals" if round(ahead, 2) == 0 else f"{'beats' if ahead > 0 else 'misses'} by {abs(ahead):.2f} points"
        share = percent_of(final.macs_mean / rival.macs_mean)
        said.append(f"`{name}` {verb} its static baseline `{called}` ({rival.accuracy:.2f} %), at {share} of its cost.")
    cheaper = [rung for rung in ladder if rung.final.macs_mean <= ALIKE * final.macs_mean]
    if cheaper:
        best = max(cheaper, key=lambda rung: rung.final.accuracy)
        stands = _verdict(final.accuracy - best.final.accuracy)
        said.append(
            f"The best smaller static network at its cost (within 2 %) or less, {_called(best)}, is {stands} it."
        )
    elif ladder:
        said.append("None of the smaller static networks costs as little.")
    if earlier:
        steps = ", then ".join(_called(step) for step in earlier)
        said.append(f"It goes on from {steps}, with all their images; the others have seen those of one training.")
    said.append("Single runs: a difference of less than about two standard errors says nothing.")
    rivals = [("this network", record), *([static] if static else []), *((_called(rung), rung) for rung in ladder)]
    seen = [record.passes or 0 for _, record in rivals]
    epochs = [str(record.config.settings["epochs"]) for _, record in rivals]
    seen[0] += sum(step.passes or 0 for step in earlier)
    epochs[0] = " + ".join([*(str(step.config.settings["epochs"]) for step in earlier), epochs[0]])
    return "## Against static networks\n\n" + " ".join(said) + "\n\n" + _rivals_table(rivals, epochs, seen)


def _called(record: RunResult) -> str:
    return f"{record.label} {record.config.backbone}"


def _rivals_table(rivals: Sequence[tuple[str, RunResult]], epochs: Sequence[str], seen: Sequence[int]) -> str:
    full = rivals[0][1].final.macs_static
    cells = [["network", "accuracy %", "MMACs", "% of static", "epochs", "student passes", "config"]]
    for (called, record), length, images in zip(rivals, epochs, seen, strict=True):
        macs = record.final.macs_mean
        row = [called, fixed(record.final.accuracy), fixed(mmacs(macs), 3), fixed(100 * macs / full, 1)]
        row += [length, fixed(images, 0), str(record.hash)]
        cells.append(row)
    return markdown(cells)


def _training(config: RunConfig, record: RunResult) -> str:
    made, start = record.made_with, record.started_from
    lines = ["## Training\n", "```", command(config, start.name if start else ""), "```\n", f"- config {record.hash}"]
    lines += [f"- started from the weights of `{start.name}` (config {start.hash})"] if start else []
    lines += [
        f"- commit {made.commit or 'unknown'}",
        f"- spnet {made.spnet}, torch {made.torch}, python {made.python}",
        f"- {made.hardware}, {made.threads} thread{'s' if made.threads != 1 else ''}, {made.precision}",
        f"- {duration(record.train_seconds)}, {record.passes or 0:,} student passes",
    ]
    return "\n".join(lines)


def _limits(name: str, classes: Sequence[str]) -> str:
    return "\n".join(
        [
            "## Intended use and limits\n",
            "For trying the package, for comparisons and for teaching.\n",
            f"- It knows {len(classes)} classes ({', '.join(classes)}) and names one of them for every picture, "
            "whatever it shows. The probability it prints is not calibrated.",
            "- Pictures of another size are scaled and cut to their centre, which is not how its training images were "
            "made: expect less than the accuracy above.",
            "- It carries the biases of its data. Not for decisions about people, nor where an error does harm.",
            f"- Multiply-adds are no milliseconds: `spnet bench {name}` measures those.",
            "- One run, one seed. Weights: Apache-2.0, as the package.",
        ]
    )
