"""Put a finished run into the package.

    python scripts/ship.py runs/static cifar10-static
    python scripts/ship.py runs/spnet cifar10 --static cifar10-static --ladder results/0123456789ab.json ...

Writes src/spnet/weights/NAME: what loading needs, the record, and a card made from the record. Paths of the machine
that trained it stay behind.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from spnet.errors import UserError
from spnet.files import write_bytes, write_text
from spnet.jobs.runner import with_curves, without_place
from spnet.report.card import card
from spnet.runs.config import RunConfig
from spnet.runs.folder import read_config, write_config
from spnet.runs.open import load, run_folder
from spnet.runs.record import RunResult, read_result, write_result

WEIGHTS = Path(__file__).parent.parent / "src" / "spnet" / "weights"


def ship(run: str, name: str, static: str = "", ladder: list[str] | None = None, weights: Path = WEIGHTS) -> Path:
    """Write `weights`/`name`; returns that folder. `UserError` for a run that is not finished or cannot be loaded."""
    folder, out = run_folder(run), weights / name
    config, facts = read_config(folder)
    plain = RunConfig.from_json({**config.to_json(), "data": config.data_name})
    if plain.hash != config.hash:
        raise UserError(f"{run} was trained on '{config.data}', which is its own path: only named data sets can ship.")
    rival = (run_folder(static).name, _record(static)) if static else None
    shipped = {known.parent.name: read_result(known) for known in sorted(weights.glob("*/result.json"))}
    known = {**shipped, **({rival[0]: rival[1]} if rival else {})}
    record = _named_start(_record(run), known)
    rungs = [_record(rung) for rung in ladder or []]
    text = card(name, plain, facts.classes, record, rival, rungs, _earlier(record, known))
    load(folder)  # refuses weights that are damaged or another network's
    if record.made_with.commit.endswith("-dirty"):
        print(f"ship: {run} was trained on changed sources, {record.made_with.commit}", file=sys.stderr)
    write_config(out, plain, replace(facts, data_at="", started_from=record.started_from or facts.started_from))
    write_result(out / "result.json", without_place(record, plain))
    write_text(out / "card.md", text)
    write_bytes(out / "model.safetensors", (folder / "model.safetensors").read_bytes())  # last: it makes a name of it
    return out


def _record(run: str) -> RunResult:
    """The record of a run folder, of a shipped network, or a file of results/."""
    if run.endswith(".json"):
        return read_result(Path(run))
    folder = run_folder(run)
    if not (folder / "result.json").is_file():
        raise UserError(f"{run} is not finished: it has no result.json.")
    rows = (folder / "metrics.jsonl").is_file()
    return with_curves(folder) if rows else read_result(folder / "result.json")


def _named_start(record: RunResult, known: dict[str, RunResult]) -> RunResult:
    """The record of a run that goes on from one of the `known` networks (name -> record), by that name."""
    start = record.started_from
    for name, other in known.items():
        if start and start.hash == other.hash:
            return replace(record, started_from=replace(start, name=name))
    return record


def _earlier(record: RunResult, known: dict[str, RunResult]) -> list[RunResult]:
    """The trainings that a run goes on from, the first of them first; `UserError` for one that is not known."""
    by_hash = {other.hash: other for other in known.values()}
    steps: list[RunResult] = []
    while start := record.started_from:
        if start.hash not in by_hash:
            raise UserError(f"it started from {start.name} ({start.hash}), which does not ship: ship that first.")
        record = by_hash[start.hash]
        steps.insert(0, record)
    return steps


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", metavar="RUN", help="the finished run folder")
    parser.add_argument("name", metavar="NAME", help="what the network will be called")
    parser.add_argument("--static", default="", metavar="RUN", help="the static network it is measured by")
    parser.add_argument("--ladder", nargs="*", metavar="RUN", help="smaller static networks: run folders or records")
    args = parser.parse_args()
    try:
        print(ship(args.run, args.name, args.static, args.ladder))
    except UserError as error:
        print(f"ship: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
