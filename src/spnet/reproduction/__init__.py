"""The paper's tables and figures, and our own, as lists of runs and ways to print them.

A target is a module with `sections(plan)` (a table) or with `runs`, `networks` and `write` (a figure). A table may have
more beside its rows, of the networks that are there: `prepare` makes records, `time` takes milliseconds, `tables`
prints them, `draw` draws them.
Adding a target is one file and its name here.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from spnet.jobs.runner import check_record, finished, record, unique
from spnet.reproduction.output import Printed, write_tables
from spnet.reproduction.plan import Plan
from spnet.reproduction.table import Cells
from spnet.runs.config import RunConfig

PAPER = ("table1", "table2", "table3", "supplement-a", "figure1", "figure2", "figure3", "stability")
TARGETS = (*PAPER, "contenders", "methods", "lookahead", "budgets", "precision")
TIMED = ("contenders",)
"""Those that know milliseconds."""


def runs(target: str, plan: Plan) -> list[RunConfig]:
    """Every run the target needs, each once."""
    module = _module(target)
    if hasattr(module, "sections"):
        return unique([run for section in module.sections(plan) for run in section.runs])
    return unique(module.runs(plan))


def networks(target: str, plan: Plan) -> list[RunConfig]:
    """Those of `runs` whose weights are needed, not just their records."""
    module = _module(target)
    return module.networks(plan) if hasattr(module, "networks") else []


def write(target: str, plan: Plan, results: Path, folder: Path, out: Path) -> list[Path]:
    """Print the target from finished runs; returns the files.

    Args:
        results: where the records are.
        folder: where run folders with weights are, by hash.

    Raises:
        UserError: a record is damaged.
    """
    for run in runs(target, plan):
        if finished(run, results):
            check_record(run, results)
    module = _module(target)
    if not hasattr(module, "sections"):
        return module.write(plan, results, folder, out)
    if hasattr(module, "prepare"):
        module.prepare(plan, results)
    printed = [Printed(*part) for part in rendered(target, plan, results)]
    files = write_tables(out / target, printed, foot(runs(target, plan), plan, results))
    return files + (module.draw(plan, results, out) if hasattr(module, "draw") else [])


def time(target: str, plan: Plan, results: Path) -> None:
    """Take the milliseconds of what is trained, and keep them beside the records. One of `TIMED`."""
    module = _module(target)
    if hasattr(module, "prepare"):
        module.prepare(plan, results)
    module.time(plan, results)


def rendered(target: str, plan: Plan, results: Path) -> list[tuple[str, Cells, list[str]]]:
    """Title, cells and notes of each of a target's tables; a figure has none."""
    module = _module(target)
    if not hasattr(module, "sections"):
        return []
    parts = [(section.title, *section.render(results)) for section in module.sections(plan)]
    return parts + (module.tables(plan, results) if hasattr(module, "tables") else [])


def needs_networks(target: str, plan: Plan) -> list[RunConfig]:
    """Those without whose weights it is not written at all: a table leaves out what is not finished."""
    return [] if hasattr(_module(target), "sections") else networks(target, plan)


def foot(wanted: list[RunConfig], plan: Plan, results: Path) -> list[str]:
    """What every figure above was made with."""
    count = sum(finished(run, results) for run in wanted)
    return [
        plan.scale.caution,
        "Accuracy: last epoch, test set read once; ± one standard deviation over seeds; differences are paired, with "
        "half their 95 % t interval. shuffled: every image on another image's path; fixed path: everyone on one path "
        "of about the cost, % of static behind it; neither finetuned. KL: between the features of adjoining stages, in "
        "nats; flips: share of decisions that changed in the last epoch; cost in training: with noise, % of static. "
        "MMACs: million multiply-adds per image: stem, options run, routers, heads; "
        "GFLOPs = 2 x GMACs; % of static: of the full static network's multiply-adds. Figures marked paper are the "
        "paper's own, ResNet-110.",
        f"{count} of {len(wanted)} runs finished. {made_by(wanted, results)} Command: {plan.command}.",
    ]


def made_by(wanted: list[RunConfig], results: Path) -> str:
    """Hardware, versions and commits of the finished runs, in a few sentences."""
    made = [record(run, results).made_with for run in wanted if finished(run, results)]

    def each(name: str) -> str:
        return ", ".join(sorted({str(getattr(m, name)) for m in made})) or "none"

    return (
        f"Hardware: {each('hardware')}. torch {each('torch')}, spnet {each('spnet')}, precision {each('precision')}, "
        f"threads {each('threads')}. Commits: {each('commit')}."
    )


def _module(target: str) -> Any:
    return import_module(f"spnet.reproduction.{target.replace('-', '_')}")
