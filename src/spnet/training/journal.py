"""A run's folder while it trains: on disk is always the state of a finished epoch."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spnet.files import remove_leftovers
from spnet.methods.base import Phase
from spnet.runs import folder
from spnet.runs.facts import ComputedWith, Facts
from spnet.runs.forms import fill, to_json
from spnet.runs.record import EpochRow, write_metrics
from spnet.runs.resumed import check_decisions
from spnet.training.events import append_event, start_events
from spnet.training.loop import Loop
from spnet.training.monitor import Monitor
from spnet.training.tally import Tally


class Journal:
    """Args:
        out: the run folder.
        loop: what is trained.
        monitor: looks at the network after each epoch.
        facts: what config.json says beside the run.

    Attributes:
        rows: one an epoch.
        longest: seconds of the longest epoch of this call.
    """

    def __init__(self, out: Path, loop: Loop, monitor: Monitor, facts: Facts) -> None:
        self.out = out
        self.loop = loop
        self.monitor = monitor
        self.facts = facts
        self.rows: list[EpochRow] = []
        self.longest = 0.0
        self.computed_with = ComputedWith.here(loop.place)
        self._since = time.monotonic()

    def begin(self) -> None:
        self._keep()  # before config.json, which makes the folder a run: whatever is a run can be resumed
        self._open()

    def go_on(self, state: dict[str, Any], before: Facts) -> None:
        """From the state on disk; `before` are the facts that config.json holds."""
        source = self.out / "state" / "resume.pt"
        self.loop.go_to(state, source)
        check_decisions(state, (len(self.monitor.probe), len(self.loop.net.blocks)), source)
        self.rows = [fill(EpochRow, row) for row in state["rows"]]
        if state["previous_decisions"] is not None:
            self.monitor.previous = state["previous_decisions"].to(self.loop.place.device)
        remove_leftovers(self.out, self.out / "state", self.out / "events")
        self._open(before)

    def _open(self, before: Facts | None = None) -> None:
        if before != self.facts:
            folder.write_config(self.out, self.loop.config, self.facts)
        start_events(self.out, [to_json(row) for row in self.rows])
        self._since = time.monotonic()

    def add(self, phase: Phase, tally: Tally) -> EpochRow:
        """Look at the network after an epoch and write everything down; returns the epoch's row."""
        loop = self.loop
        seen = self.monitor.look(loop.net)
        seconds = time.monotonic() - self._since
        self.longest = max(self.longest, seconds)
        row = EpochRow(
            epoch=loop.done,
            phase=phase.name,
            lr=tally.rate,
            time=time.time(),
            seconds=seconds,
            train_images=tally.images,
            student_passes=tally.images * phase.forwards,
            precision=loop.precision,
            **tally.means(),
            **seen,
        )
        self.rows.append(row)
        append_event(self.out, to_json(row))
        write_metrics(self.out, self.rows)
        folder.save_network(self.out, loop.net)
        self._keep()
        self._since = time.monotonic()
        return row

    def record(self) -> dict[str, Any]:
        """All that an exact resume needs."""
        loop = self.loop
        return {
            "epoch": loop.done,
            "rows": [to_json(row) for row in self.rows],
            "net": loop.net.state_dict(),
            "method": loop.method.state.state_dict(),
            "optimizer": loop.optimizer.state_dict() if loop.optimizer is not None else None,
            "previous_decisions": self.monitor.previous,
            "computed_with": asdict(self.computed_with),
        }

    def _keep(self) -> None:
        folder.save_resume(self.out, self.record())
