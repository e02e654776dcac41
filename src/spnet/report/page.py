"""The page as a whole: which sections, in which order, and how it is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spnet.errors import UserError
from spnet.files import write_text
from spnet.report.groups import group
from spnet.report.layout import folded, note, section
from spnet.report.markup import Markup, element, join
from spnet.report.numbers import fixed, percent_of
from spnet.report.run import Run, read_run
from spnet.report.sections.answer import against_static
from spnet.report.sections.blocks import collapse, execution_rates
from spnet.report.sections.comparison import comparison
from spnet.report.sections.configuration import configuration
from spnet.report.sections.header import headline
from spnet.report.sections.images import class_rates, image_costs
from spnet.report.sections.losses import losses, stage_accuracy
from spnet.report.sections.mistakes import mistakes
from spnet.report.sections.overlay import curves, legend
from spnet.report.sections.progress import accuracy, cost
from spnet.report.sections.stability import stability
from spnet.report.sections.tradeoff import trade_off
from spnet.report.tested import LoadData, load_if_here, run_test_images


@dataclass(frozen=True)
class Detail:
    """How fine a run is drawn: columns of its execution-rate map, epochs of a curve that answer to the pointer."""

    columns: int
    hovers: int

    @classmethod
    def among(cls, runs: int) -> "Detail":
        """Coarser the more runs share the page, so that twenty large ones stay under five megabytes."""
        return cls(min(160, max(40, 1000 // runs)), min(120, max(16, 360 // runs)))


TOGETHER = Detail(160, 60)
"""For the charts that show all runs at once."""


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Write one self-contained page about the runs in `folders` to the file `out`.

    Raises:
        UserError: a folder is no run, no folder is given, or `out` cannot be written.
    """
    if not folders:
        raise UserError("a report needs at least one run folder.")
    runs = [read_run(folder) for folder in {folder.resolve(): folder for folder in folders}.values()]
    load_data = cache(load_if_here)
    body = single(runs[0], load_data) if len(runs) == 1 else several(runs, load_data)
    title = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
    # Plain ASCII reads the same in every encoding, and no stray surrogate of a file name can stop the writing.
    write_text(out, document(f"{title}: spnet report", body).encode("ascii", "xmlcharrefreplace").decode("ascii"))


def document(title: str, body: Markup) -> Markup:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", beside("style.css")),
    )
    script = element("script", beside("script.js"))
    return join(Markup("<!DOCTYPE html>\n"), element("html", head, element("body", body, script), lang="en"), "\n")


def beside(name: str) -> Markup:
    """The text of a file in this folder, in ASCII, because nothing is escaped inside style and script elements."""
    return Markup(Path(__file__).with_name(name).read_text("ascii"))


def single(run: Run, load_data: LoadData) -> Markup:
    return element("main", element("h1", run.label), under(run), *contents(run, load_data, Detail.among(1)))


def several(runs: Sequence[Run], load_data: LoadData) -> Markup:
    """The comparison, then each run's own part, folded."""
    groups = group(runs)
    anchors = {id(run): f"run-{place + 1}" for place, run in enumerate(runs)}
    names = {id(run): found.name for found in groups for run in found.runs}
    own = []
    for run in runs:
        final = run.final
        figures = f"{fixed(final.accuracy)} % at {percent_of(final.cost_ratio)} of static"
        told = f"seed {run.config.training.seed}: {figures if final.met else 'no test figures'}"
        summary = join(names[id(run)], " ", element("span", told, class_="under"))
        inside = [under(run), *contents(run, load_data, Detail.among(len(runs)))]
        own.append(folded(summary, *inside, id=anchors[id(run)]))
    banded = any(len(found.runs) > 1 for found in groups)
    words = note("Bands: ± 1 standard deviation over the seeds around their mean.") if banded else None
    charts = [*trade_off(groups), *curves(groups, TOGETHER.hovers), words]
    together = element("div", rows_of("Side by side", [legend(groups), *charts]), class_="together")
    title = element("h1", f"{len(runs)} runs")
    begin = [title, against_static(groups), comparison(groups, anchors)]
    return element("main", *begin, together, section("Each run"), *own)


def under(run: Run) -> Markup:
    return element("p", f"{run.config.backbone} on {run.data}, seed {run.config.training.seed}", class_="under")


def contents(run: Run, load_data: LoadData, detail: Detail) -> list[Markup | None]:
    """Everything about one run, in the order of the page."""
    hovers = detail.hovers
    over_epochs = [accuracy(run, hovers), cost(run, hovers), execution_rates(run, detail.columns)] if run.rows else []
    return [
        headline(run),
        *test_images(run, load_data),
        rows_of("Accuracy, cost and blocks over the epochs", over_epochs),
        rows_of("Stability", stability(run, hovers)),
        rows_of("Losses, gradients and stages", [*losses(run, hovers), stage_accuracy(run, hovers)]),
        collapse(run),
        configuration(run),
    ]


def rows_of(title: str, figures: Sequence[Markup | None]) -> Markup | None:
    """A section, unless it would be empty."""
    return section(title, *figures) if any(figures) else None


def test_images(run: Run, load_data: Callable[..., object]) -> list[Markup | None]:
    """The sections that need the network and the test set, or one line on why they are missing."""
    try:
        tested = run_test_images(run, load_data)  # type: ignore[arg-type]
    except UserError as error:
        return [section("What each test image costs", note(f"Not shown: {error}"))]
    return [image_costs(tested), mistakes(tested), class_rates(tested)]
