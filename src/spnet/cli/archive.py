"""`spnet predict --folder DIR | --parquet FILES --out FILE`: photos by the thousand, into a Parquet file."""

import argparse
from pathlib import Path
from typing import Any

from spnet.cli import Parser
from spnet.cli.loading import add_workers
from spnet.cli.named import Named
from spnet.cli.on import add_on, speaking_aside
from spnet.cli.rules import rules_of
from spnet.errors import UserError


def add_archive(parser: Parser) -> None:
    group = parser.add_argument_group(
        "archives",
        "Rows of a Parquet file instead: path, class, probability, decisions, macs, exit_stage, error. What cannot be "
        "read is a row with an error. Called again after a kill, it goes on; the file is the same.",
    )
    group.add_argument("--folder", metavar="DIR", help="every picture in it and in its inner folders")
    group.add_argument(
        "--parquet", metavar="FILE", nargs="+", help="Parquet files with a column image or img (Hugging Face layout)"
    )
    group.add_argument("--out", metavar="FILE", help="the Parquet file to write; parts lie in FILE.parts meanwhile")
    group.add_argument("--batch-size", type=int, metavar="N", help="photos computed at a time (default 64)")
    add_workers(group)
    add_on(group)


def names_archive(argv: list[str]) -> bool:
    """Whether the words of a command name an archive, so that no picture has to be named."""
    return any(word.split("=")[0] in ("--folder", "--parquet") for word in argv)


def is_archive(args: argparse.Namespace) -> bool:
    """Whether the command asks for a file of rows; `UserError` where it asks for half of it, or for both."""
    archive = args.folder is not None or args.parquet is not None
    if not archive:
        if any(value is not None for value in (args.out, args.batch_size, args.on)):
            raise UserError("--out, --batch-size and --on go with --folder DIR or --parquet FILE.")
        return False
    if args.images or (args.folder is not None and args.parquet is not None):
        raise UserError("give pictures, --folder DIR or --parquet FILE: one of the three.")
    if args.draw is not None:
        raise UserError("--draw is for pictures that are named: leave it out with --folder and --parquet.")
    if args.out is None:
        raise UserError("--folder and --parquet write a file: name it, such as --out rows.parquet.")
    return True


def run_archive(args: argparse.Namespace, named: Named) -> dict[str, Any]:
    from spnet.inference.batch.predict import BATCH_SIZE, predict_files

    with speaking_aside():
        made = predict_files(
            named.net,
            args.out,
            folder=args.folder,
            parquet=args.parquet,
            executor=args.executor or "auto",
            batch_size=BATCH_SIZE if args.batch_size is None else args.batch_size,
            workers=args.workers,
            on=args.on or "",
            **rules_of(args),
        )
    return {
        "run": str(args.run),
        "out": str(Path(made.out)),
        "photos": made.photos,
        "unreadable": made.unreadable,
        "kept": made.kept,
    }


def describe_archive(result: dict[str, Any]) -> str:
    kept = f", {result['kept']} of them done before" if result["kept"] else ""
    bad = f"; {result['unreadable']} could not be read: see column error" if result["unreadable"] else ""
    return f"wrote {result['out']}: {result['photos']} photos{kept}{bad}"
