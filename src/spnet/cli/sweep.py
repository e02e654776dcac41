"""`spnet sweep`: every combination of some settings, each over the seeds, as one list of runs; then one table."""

import argparse
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spnet.cli import Parser
from spnet.cli.live import live
from spnet.cli.on import add_runs_on, launching
from spnet.cli.threads import add_threads, computing_with
from spnet.cli.train import BASE, add_settings, base_config
from spnet.errors import UserError

if TYPE_CHECKING:
    from spnet.reproduction.lines import Row


def configure(parser: Parser, argv: list[str]) -> None:
    for flag, metavar, text in BASE:
        parser.add_argument(flag, dest=flag[2:].replace("with", "wrapper"), metavar=metavar, help=text)
    parser.set_defaults(init=None, resume=None)
    parser.add_argument(
        "--grid",
        action="append",
        metavar="NAME=V,V,...",
        help="a setting and its values, such as lr=0.05,0.1; given several times, every combination is trained. "
        "Combinations that differ in their seed alone are one row of the table",
    )
    parser.add_argument("--out", default="swept", metavar="DIR", help="where the table goes (default swept)")
    parser.add_argument("--results", metavar="DIR", help="records of finished runs; default OUT/results")
    parser.add_argument("--work", metavar="DIR", help="run folders under way; default OUT/work")
    add_threads(parser, " of each run")
    add_runs_on(parser)
    named, _ = parser.parse_known_args([a for a in argv if a not in ("-h", "--help")])
    add_settings(parser, named)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from spnet.jobs.runner import run_all, unique
    from spnet.reproduction import made_by
    from spnet.reproduction.output import Printed, write_tables
    from spnet.reproduction.section import Section

    rows = _rows(args)
    runs = unique([run for row in rows for run in row.runs])
    out = Path(args.out)
    results, work = Path(args.results or out / "results"), Path(args.work or out / "work")
    with launching(args, {run.data for run in runs}) as how, live() as show, computing_with(args.threads):
        board = run_all(runs, results=results, work=work, show=show, **how)
    title = f"{runs[0].label} on {runs[0].data_name}, {runs[0].backbone}"
    cells, notes = Section(title, rows).render(results)
    files = write_tables(out / "sweep", [Printed(title, cells, notes)], [made_by(runs, results)])
    return {"runs": len(runs), "files": [str(file) for file in files], "failed": [*board.failed.values()]}


def _rows(args: argparse.Namespace) -> "list[Row]":
    """A row for every combination, its seeds together."""
    from spnet.reproduction.lines import Row

    fixed = {name.removeprefix("setting:"): value for name, value in vars(args).items() if name.startswith("setting:")}
    base = base_config(args).with_settings(**fixed)
    grid = dict(map(_values, args.grid or ()))
    if len(grid) < len(args.grid or ()) or (twice := [name for name in grid if name in fixed]):
        name = twice[0] if len(grid) == len(args.grid) else "a setting"
        raise UserError(f"{name} is given twice: give each setting once, with one value or in --grid.")
    seeds = grid.pop("seed", [base.training.seed])
    rows = []
    for values in product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        runs = tuple(base.with_settings(**point, seed=seed) for seed in seeds)
        rows.append(Row(", ".join(f"{name} {value}" for name, value in point.items()) or base.label, runs))
    return rows


def _values(text: str) -> tuple[str, list[str]]:
    """`lr=0.05,0.1` taken apart."""
    name, _, values = text.partition("=")
    found = [value for value in values.split(",") if value]
    if not name or not found:
        raise UserError(f"--grid wants a setting and its values, such as lr=0.05,0.1; not '{text}'.")
    return name.replace("-", "_"), found


def describe(result: dict[str, Any]) -> str:
    table = Path(next(file for file in result["files"] if file.endswith(".md"))).read_text()
    said = [f"failed: {reason}" for reason in result["failed"]]
    return "\n".join([table, *(f"wrote {file}" for file in result["files"]), *said])
