"""One run of a list, in a process of its own: `python -m spnet.jobs.worker FOLDER PARENT < config.json`.

Starts the run, or resumes it if FOLDER holds part of it. Ends when its parent does, so that a runner killed and started
again never meets its own orphans.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spnet.errors import DivergedError, UserError
from spnet.jobs.orphan import end_with
from spnet.waiting import choose_waiting

if TYPE_CHECKING:
    from spnet.runs.config import RunConfig


def main() -> int:
    choose_waiting()
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    end_with(parent)
    from spnet.runs.config import RunConfig

    return train(RunConfig.from_json(json.load(sys.stdin)), folder)


def train(config: "RunConfig", folder: Path) -> int:
    """Start, resume or (finished already) leave the run; returns an exit code, errors on stderr.

    Two runners may share a folder of runs: whoever comes second waits, and finds the run finished.
    """
    from spnet import data
    from spnet.runs.lock import held
    from spnet.training.fit import fit

    def note(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        with held(folder, wait=True):
            if not (folder / "result.json").is_file():
                begun = (folder / "config.json").is_file()
                fit(config, data.load(config.data), folder, resume=begun, note=note)
    except (UserError, DivergedError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
