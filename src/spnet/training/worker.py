"""One run of a list, in a process of its own: `python -m spnet.training.worker FOLDER PARENT < config.json`.

Starts the run, or resumes it if FOLDER holds part of it. Ends when its parent does, so that a runner killed and started
again never meets its own orphans.
"""

import json
import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from spnet.errors import DivergedError, UserError
from spnet.files import alone, cannot_write

if TYPE_CHECKING:
    from spnet.training.config import RunConfig


def main() -> int:
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    from spnet.training.config import RunConfig

    return train(RunConfig.from_json(json.load(sys.stdin)), folder)


def train(config: "RunConfig", folder: Path) -> int:
    """Start, resume or (finished already) leave the run; returns an exit code, errors on stderr.

    Two runners may share a folder of runs: whoever comes second waits, and finds the run finished.
    """
    from spnet import data
    from spnet.training.fit import fit

    try:
        with ExitStack() as stack:
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(alone(folder.with_name(f"{folder.name}.lock")))
            except OSError as error:
                raise cannot_write(folder, error) from error
            if not (folder / "result.json").is_file():
                begun = (folder / "config.json").is_file()
                fit(config, data.load(config.data), folder, resume=begun)
    except (UserError, DivergedError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    return 0


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())
