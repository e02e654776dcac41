"""`spnet reproduce`: train what a table needs and has not been trained yet, then print it."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from spnet.cli import Parser

TARGETS = ("digits",)


def configure(parser: Parser, argv: list[str]) -> None:
    parser.add_argument("target", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--out", default="reproduced", metavar="DIR", help="where tables go (default reproduced)")
    parser.add_argument(
        "--results", default="results", metavar="DIR", help="records of finished runs (default results)"
    )
    parser.add_argument("--work", default="runs/reproduce", metavar="DIR", help="run folders under way")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="runs at a time")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds; default: all of the table's")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, done and to do, and stop")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from spnet.errors import UserError, choose
    from spnet.experiments import digits
    from spnet.experiments.table import beaten_by_static, comma_separated, markdown, table
    from spnet.files import write_text
    from spnet.training.runner import finished, run_all, unique

    choose("target", args.target, TARGETS)
    if args.seeds is not None and not 1 <= args.seeds <= len(digits.SEEDS):
        raise UserError(f"--seeds lies between 1 and {len(digits.SEEDS)}, not {args.seeds}.")
    rows = digits.rows(digits.SEEDS[: args.seeds])
    runs = unique([run for row in rows for run in row.runs])
    results = Path(args.results)
    todo = [run for run in runs if not finished(run, results)]
    if args.dry_run:
        listed = [{"hash": run.hash, "label": run.label, "done": run not in todo} for run in runs]
        return {"target": args.target, "runs": listed, "to_do": len(todo), "page": ""}
    board = run_all(runs, results=results, work=Path(args.work), workers=args.workers, show=_show())
    cells = table(rows, results, digits.BASELINE)
    page = Path(args.out) / f"{args.target}.md"
    notes = "".join(f"- {sentence}\n" for sentence in beaten_by_static(rows, results))
    write_text(page, markdown(cells) + ("\n" + notes if notes else ""))
    write_text(page.with_suffix(".csv"), comma_separated(cells))
    if board.failed:
        raise RuntimeError(f"{len(board.failed)} runs failed: {'; '.join(board.failed.values())}")
    return {"target": args.target, "runs": [{"hash": run.hash, "label": run.label} for run in runs], "page": str(page)}


def _show() -> Any:
    """A line whenever a run starts or ends, on stderr."""
    last = [""]

    def show(board: Any) -> None:
        left = "" if board.seconds_left is None else f", about {board.seconds_left / 60:.0f} min left"
        text = (
            f"{len(board.finished)}/{len(board.planned)} done, {len(board.running)} running, {len(board.failed)} failed"
        )
        if text != last[0]:
            last[0] = text
            print(f"{time.strftime('%H:%M:%S')} {text}{left}", file=sys.stderr, flush=True)

    return show


def describe(result: dict[str, Any]) -> str:
    if not result["page"]:
        lines = [f"{'done ' if run['done'] else 'to do'}  {run['hash']}  {run['label']}" for run in result["runs"]]
        return "\n".join([*lines, f"{result['to_do']} of {len(result['runs'])} runs to do"])
    return f"{Path(result['page']).read_text()}\nwrote {result['page']}"
