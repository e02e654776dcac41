"""Lists of runs over a Ray cluster: one task a run, with the resources of a run; records come back by value.

A task is the local launcher on the node that Ray picks: it trains in the same place there as it would here. No disk has
to be shared; where one is, a run whose worker was lost goes on from its last epoch, else it begins anew.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spnet.cluster import in_a_line
from spnet.files import cannot_write, write_bytes
from spnet.jobs.launcher import Job, log_of, start_process
from spnet.runs.config import RunConfig
from spnet.runs.facts import absolute

RETRIES = 3
"""How often a run is started again whose worker or node was lost."""
LOOK = 0.2
"""Seconds between two looks at a process."""
KEPT = ("config.json", "metrics.jsonl", "model.safetensors", "result.json")
"""Files of a finished run that come back; the last says that it is finished."""
SAID = 2000
"""Letters of a failed run's log that come back."""

Answer = tuple[int, str, dict[str, bytes]]
"""(exit code, what was said, files by name)."""


class RayLauncher:
    """Args:
    ray: connected (`spnet.cluster.connected`).
    cpus, gpus: what a run takes; fractions let several runs share a device.
    """

    def __init__(self, ray: Any, cpus: float = 1.0, gpus: float = 0.0) -> None:
        self.ray = ray
        self.task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(train_on_node)

    def __call__(self, config: RunConfig, folder: Path, threads: int) -> Job:
        there = replace(config, data=absolute(config.data))  # a task has a working folder of its own
        reference = self.task.remote(there.to_json(), str(folder.absolute()), threads)
        return _Task(self.ray, reference, folder)


def train_on_node(config: dict[str, Any], folder: str, threads: int) -> Answer:
    """On the node: train in a process of its own, which ends when this one does."""
    run = Path(folder)
    job = start_process(RunConfig.from_json(config), run, threads)
    try:
        while (code := job.poll()) is None:
            time.sleep(LOOK)
    except BaseException:  # cancelled
        job.stop()
        raise
    if code:
        return code, log_of(run).read_text(encoding="utf-8", errors="replace")[-SAID:], {}
    return code, "", {name: (run / name).read_bytes() for name in KEPT if (run / name).is_file()}


@dataclass
class _Task:
    ray: Any
    reference: Any
    folder: Path

    def poll(self) -> int | None:
        ready, _ = self.ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            code, said, files = self.ray.get(self.reference)
        except self.ray.exceptions.RayError as error:  # lost once too often, or no room for it
            code, said, files = 1, in_a_line(error), {}
        for name, content in files.items():  # a shared disk has them; a folder that was begun here has older ones
            write_bytes(self.folder / name, content)
        if said:
            self._note(said)
        return code

    def _note(self, said: str) -> None:
        """What a failed run said stands in its log here too."""
        log = log_of(self.folder)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            if not log.is_file() or said not in log.read_text(encoding="utf-8", errors="replace"):
                with log.open("a", encoding="utf-8") as file:
                    file.write(said.rstrip() + "\n")
        except OSError as error:
            raise cannot_write(log, error) from error

    def stop(self) -> None:
        self.ray.cancel(self.reference, force=True)
