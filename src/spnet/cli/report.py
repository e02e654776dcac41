"""`spnet report`: one self-contained page about one run or several."""

import argparse
from pathlib import Path
from typing import Any

from spnet.cli import Parser


def configure(parser: Parser, argv: list[str]) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="the page (default report.html)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from spnet.report import write_report
    from spnet.runs.open import run_folder

    write_report([run_folder(name) for name in args.runs], Path(args.out))
    return {"page": args.out, "runs": args.runs}


def describe(result: dict[str, Any]) -> str:
    return f"wrote {result['page']} about {len(result['runs'])} run(s)"
