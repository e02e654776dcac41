"""The training of one run: what is on disk before, after each epoch and at the end.

A run is a pure function of its config and data: killed anywhere and resumed, it ends in the same weights, because the
state on disk is always that of a finished epoch and each epoch's random streams follow from its number.
"""

import contextlib
import io
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from spnet.data import Dataset
from spnet.data.fingerprint import fingerprint
from spnet.data.match import known_classes, matched
from spnet.errors import UserError
from spnet.network.dynamic import DynamicNetwork
from spnet.runs import folder
from spnet.runs.config import RunConfig
from spnet.runs.facts import ComputedWith, Facts, facts_of, refuse_other_data
from spnet.runs.forms import fill
from spnet.runs.lock import held
from spnet.runs.record import EpochRow, RunResult, write_result
from spnet.runs.state_file import torch_bytes, torch_file
from spnet.training.devices import refuse_devices, reuse_freed_memory
from spnet.training.distributed import Place, joined
from spnet.training.finish import finish, made_with
from spnet.training.journal import Journal
from spnet.training.launch import on_devices
from spnet.training.loop import Loop
from spnet.training.monitor import Monitor
from spnet.training.parts import with_fitting_batch
from spnet.training.start import normalised_for, refuse, refuse_other_processes, refuse_sharing

Report = Callable[[EpochRow], None]


@dataclass
class Outcome:
    """`finished` is False when the time limit stopped the run; `result` is then None, as it is in other processes than
    the first.

    `begun_at`: epochs that were done before this call.
    """

    net: DynamicNetwork
    rows: list[EpochRow]
    finished: bool
    result: RunResult | None = None
    begun_at: int = 0


def fit(
    config: RunConfig,
    dataset: Dataset,
    out: Path,
    *,
    init: Path | DynamicNetwork | None = None,
    resume: bool = False,
    time_limit: float | None = None,
    devices: int = 1,
    data_at: str | None = None,
    report: Report = lambda row: None,
    moved: Callable[[float], None] = lambda epochs: None,
    note: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train a run into the folder `out`, which no other process may train in meanwhile.

    A batch size that the config leaves at its default is lowered where it is larger than the training images.

    Args:
        init: another run's folder, whose backbone (and whatever else fits) is the start; or a file with a state dict of
            the original network; or a network that the config describes.
        resume: continue the run that `out` holds.
        time_limit: seconds; when another epoch would not fit, stop with a resumable folder.
        devices: processes to start, each on a CUDA device of its own (or all on the processor); they share every batch.
            Under `torchrun` they are started already: leave it at 1.
        data_at: where the images of `dataset` lie now, as `NAME:PATH`; left out, where `config` says.
        report: called with each epoch's row.
        moved: called after each step with the epochs done so far, such as 3.25.
        note: called with what the user should know, a line each.

    Raises:
        UserError: the input cannot be trained on. DivergedError: a loss was not finite.
    """
    refuse_devices(devices)
    if devices > 1:
        refuse_sharing(config.training, devices, time_limit)
        _before(out, resume)  # refused at once, not by each process
        arguments = {"config": config, "dataset": dataset, "out": out, "init": init, "resume": resume}
        told = {"report": report, "moved": moved, "note": note}
        found = on_devices(devices, _on_a_device, {**arguments, "data_at": data_at}, told)
        return Outcome(folder.load_network(out), *found)
    with joined() as place:
        if not place.leads:
            report = moved = note = _silent
        return _train(place, config, dataset, out, init, resume, time_limit, data_at, report, moved, note)


def _on_a_device(**arguments: Any) -> tuple[Any, ...]:
    """`fit` in a process that was started for it; the network stays behind, in the run's folder."""
    outcome = fit(**arguments)
    return outcome.rows, outcome.finished, outcome.result, outcome.begun_at


def _silent(*words: object) -> None: ...


def _train(
    place: Place,
    config: RunConfig,
    dataset: Dataset,
    out: Path,
    init: Path | DynamicNetwork | None,
    resume: bool,
    time_limit: float | None,
    data_at: str | None,
    report: Report,
    moved: Callable[[float], None],
    note: Callable[[str], None],
) -> Outcome:
    """`fit` in one of the run's processes: all of them train, the first one knows the folder."""
    started = time.monotonic()

    def out_of_time(needed: float = 0.0) -> bool:
        return time_limit is not None and time.monotonic() - started + needed > time_limit

    reuse_freed_memory()
    if resume and place.leads:
        folder.read_config(out)  # no folder is made for a run that is not there
    with held(out) if place.leads else contextlib.nullcontext():
        before = place.from_first(lambda: _before(out, resume))
        dataset = normalised_for(config.backbone, dataset.mirrored(config.training.flip))
        if before:
            known = known_classes(before.classes, config.data_name)
            dataset = matched(dataset, known, before.input_shape, num_classes=len(before.classes))
            refuse_other_data(dataset, before, out)
        if "batch_size" not in config.settings:
            config = with_fitting_batch(config, dataset, note)
        place.refuse_differences(settings=_settings(config), **fingerprint(dataset))
        loop = Loop.of(config, dataset, place, init if place.leads else None, note)
        refuse(config, loop.net, loop.phases, place.world_size, time_limit)
        if not place.leads:
            return _follow(loop)
        made = made_with(loop.precision)  # before the first step: the sources may change while they run
        commits = tuple(dict.fromkeys([*(before.commits if before else ()), made.commit]))
        started_from = before.started_from if before else folder.named(init)
        facts = facts_of(dataset, data_at or (before.data_at if before else "") or config.data)
        facts = replace(facts, started_from=started_from, commits=commits)
        monitor = Monitor(loop.parts.watched, dataset.augmentation, config.training.seed, loop.parts.held_out)
        journal = Journal(out, loop, monitor, facts)
        state = folder.load_resume(out) if resume else None
        if state is None or before is None:
            journal.begin()
        else:
            journal.go_on(state, before)
            was = fill(ComputedWith, state.get("computed_with") or {})
            if loop.done and (changed := was.differs(journal.computed_with)):
                refuse_other_processes(config.training, was.devices, place.world_size)
                note(changed)
        begun_at = loop.done
        if place.world_size > 1:
            place.from_first(lambda: torch_bytes(journal.record()))
        for phase, tally in loop.train(out_of_time, moved):
            report(place.from_first(partial(journal.add, phase, tally)))
            if loop.done < loop.epochs and out_of_time(journal.longest):
                break
        rows, result = journal.rows, None
        if finished := loop.done == loop.epochs:
            result = finish(loop, rows, replace(made, commit=", ".join(commits)), started_from)
            folder.save_network(out, loop.net)
            write_result(out / "result.json", result)
        return Outcome(loop.net, rows, finished, result, begun_at)


def _before(out: Path, resume: bool) -> Facts | None:
    """What the folder says of the run that it holds, if that is to go on; else it may hold none."""
    if resume:
        return folder.read_config(out)[1]
    if (out / "config.json").exists():
        raise UserError(
            f"{out} holds a run already: continue it with --resume {shlex.quote(str(out))}, or choose another --out."
        )
    return None


def _settings(config: RunConfig) -> tuple[object, ...]:
    """What every process must have been told alike: all but where its images lie."""
    return config.label, config.backbone, config.data_name, config.changed()


def _follow(loop: Loop) -> Outcome:
    """The part of another process than the first: every step, from the state that the first one starts with."""
    place = loop.place
    begun: bytes = place.from_first(bytes)
    loop.go_to(torch_file(io.BytesIO(begun)), Path("state"))
    rows = [place.from_first(EpochRow) for _ in loop.train()]  # each when it is on disk
    return Outcome(loop.net, rows, finished=True)
