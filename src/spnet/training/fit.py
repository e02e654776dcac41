"""The training of one run: phases, epochs, log rows, checkpoints. The one visible loop.

A run is a pure function of its config and data: killed anywhere and resumed, it ends in the same weights, because the
state on disk is always that of a finished epoch and each epoch's random streams follow from its number.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from spnet.data import Augmentation, Dataset, Split, balanced_subset, validation_part
from spnet.dynamic import DynamicNetwork
from spnet.errors import UserError
from spnet.files import remove_leftovers
from spnet.methods.base import Phase
from spnet.training import checkpoint
from spnet.training.calibrate import spread
from spnet.training.capture import cuda_graph
from spnet.training.config import RunConfig
from spnet.training.devices import resolve_precision, reuse_freed_memory, take_place
from spnet.training.epoch import check_weights, train_epoch
from spnet.training.events import append_event, start_events
from spnet.training.finish import finish, made_with
from spnet.training.monitor import PROBE, Monitor
from spnet.training.schedule import build_optimizer
from spnet.training.start import build, refuse_capture, refuse_sharing
from spnet.training.streams import Streams

Report = Callable[[dict[str, Any]], None]


@dataclass
class Outcome:
    """`finished` is False when the time limit stopped the run; `result` is then None.

    `begun_at`: epochs that were done before this call. `rank`: of several processes the first, 0, writes and speaks.
    """

    net: DynamicNetwork
    rows: list[dict[str, Any]]
    finished: bool
    result: dict[str, Any] | None = None
    begun_at: int = 0
    rank: int = 0


@dataclass
class Parts:
    """The images of a run: what it trains on, what it watches each epoch, what the result is read from."""

    train: Split
    watched: Split
    held_out: bool
    """False when there is no validation part and `watched` is a piece of the training images."""
    test: Split = field(repr=False)

    @classmethod
    def of(cls, dataset: Dataset, config: RunConfig) -> "Parts":
        training = config.training
        train = balanced_subset(dataset.train, training.subset) if training.subset else dataset.train
        held_out = training.validation > 0
        train, watched = validation_part(train, training.validation) if held_out else (train, spread(train, PROBE))
        if training.batch_size > len(train):
            raise UserError(
                f"batch_size {training.batch_size} is larger than the {len(train)} training images: lower it."
            )
        return cls(train, watched, held_out, dataset.test)

    def to(self, device: torch.device) -> "Parts":
        return Parts(self.train.to(device), self.watched.to(device), self.held_out, self.test.to(device))


def fit(
    config: RunConfig,
    dataset: Dataset,
    out: Path,
    *,
    init: Path | None = None,
    resume: bool = False,
    time_limit: float | None = None,
    devices: int = 1,
    report: Report = lambda row: None,
) -> Outcome:
    """Train a run into the folder `out`.

    Args:
        init: another run's folder; its backbone (and whatever else fits) is the start.
        resume: continue the run that `out` holds.
        time_limit: seconds; when another epoch would not fit, stop with a resumable folder.
        report: called with each epoch's row.

    Raises:
        UserError: the input cannot be trained on. DivergedError: a loss was not finite.
    """
    started = time.monotonic()
    reuse_freed_memory()
    training = config.training
    place = take_place(devices)
    refuse_sharing(training.batch_size, place, time_limit)
    parts = Parts.of(dataset, config).to(place.device)
    method, net = build(config, dataset, place.device, init)
    if (training.budget or training.more_budgets) and not any(net.gated):
        raise UserError("a static network has no decisions to calibrate: choose a dynamic method, or drop the budget.")
    precision = resolve_precision(training.precision, place.device)
    before = checkpoint.read_config(out)[1] if resume else {}
    started_from = before.get("started_from") if resume else checkpoint.named(init)
    made = made_with(precision)  # before the first step: the sources may change while they run
    commits = list(dict.fromkeys([*before.get("commits", []), made["commit"]]))
    facts = {**_facts(dataset), "started_from": started_from, "commits": commits}
    augmentation: Augmentation | None = dataset.augmentation if training.augment else None
    monitor = Monitor(parts.watched, dataset.augmentation, training.seed, parts.held_out)
    phases = method.phases(training.epochs)
    if training.capture:
        refuse_capture(training, phases, place)
    schedule = _epochs(phases)
    rows: list[dict[str, Any]] = []
    first = 0
    optimizer: torch.optim.Optimizer | None = None

    def keep(epochs_done: int) -> None:
        record = {
            "epoch": epochs_done,
            "rows": rows,
            "net": net.state_dict(),
            "method": method.state.state_dict(),
            "optimizer": optimizer.state_dict() if optimizer is not None else None,
            "previous_decisions": monitor.previous,
        }
        checkpoint.save_resume(out, record)

    state: dict[str, Any] | None = None
    if resume:
        remove_leftovers(out)
        state = checkpoint.load_resume(out)
        first, rows = state["epoch"], state["rows"]
        checkpoint.fit_state(net, state["net"], out / "state" / "resume.pt")
        checkpoint.fit_state(method.state, state["method"], out / "state" / "resume.pt")
        if place.rank == 0 and commits != before.get("commits"):
            checkpoint.write_config(out, config, facts)
        if state["previous_decisions"] is not None:
            monitor.previous = state["previous_decisions"].to(place.device)
    elif place.rank == 0:
        _refuse_taken(out)
        keep(0)  # before config.json, which makes the folder a run: whatever is a run can be resumed
        checkpoint.write_config(out, config, facts)
    longest = 0.0
    if place.rank == 0:
        start_events(out, rows)
    for epoch in range(first, len(schedule)):
        phase, epoch_in_phase = schedule[epoch]
        beginning = time.monotonic()
        optimizer_config = phase.optimizer or training.main_optimizer()
        if epoch_in_phase == 0 or optimizer is None:
            if epoch_in_phase == 0 and phase.on_start is not None:
                phase.on_start(net)
            trainable = [p for name, p in net.named_parameters() if phase.trainable(name)]
            optimizer = build_optimizer(optimizer_config, trainable)
            if state is not None and epoch_in_phase > 0:
                optimizer.load_state_dict(state["optimizer"])
        tally = train_epoch(
            net,
            optimizer,
            phase,
            optimizer_config,
            parts.train,
            batch_size=training.batch_size,
            augmentation=augmentation,
            streams=Streams(training.seed, epoch, place.device, place.rank),
            epoch_in_phase=epoch_in_phase,
            precision=precision,
            rank=place.rank,
            world_size=place.world_size,
            record=cuda_graph if training.capture else None,
            out_of_time=lambda: time_limit is not None and time.monotonic() - started > time_limit,
        )
        if tally is None:
            return Outcome(net, rows, finished=False, begun_at=first)
        tally.check()
        check_weights(net)
        row = {"epoch": epoch + 1, "phase": phase.name, **tally.means(), **monitor.look(net)}
        row |= {"lr": tally.rate, "time": time.time()}
        longest = max(longest, time.monotonic() - beginning)
        row |= {"seconds": time.monotonic() - beginning, "train_images": tally.images, "precision": precision}
        rows.append(row)
        if place.rank == 0:
            append_event(out, row)
            checkpoint.write_metrics(out, rows)
            checkpoint.save_network(out, net)
            keep(epoch + 1)
            report(row)
        if time_limit is not None and epoch + 1 < len(schedule) and time.monotonic() - started + longest > time_limit:
            return Outcome(net, rows, finished=False, begun_at=first)
    result = finish(
        net,
        config,
        parts.train,
        parts.test,
        rows,
        made={**made, "commit": ", ".join(commits)},
        held_out=parts.held_out,
        augmentation=augmentation,
    )
    result["started_from"] = started_from
    if place.rank == 0:
        checkpoint.save_network(out, net)
        checkpoint.write_json(out / "result.json", result)
    return Outcome(net, rows, finished=True, result=result, begun_at=first, rank=place.rank)


def _epochs(phases: list[Phase]) -> list[tuple[Phase, int]]:
    """(phase, epoch within it) for every epoch of the run."""
    return [(phase, epoch) for phase in phases for epoch in range(phase.epochs)]


def _refuse_taken(out: Path) -> None:
    if (out / "config.json").exists():
        raise UserError(f"{out} holds a run already: continue it with --resume {out}, or choose another --out.")


def _facts(dataset: Dataset) -> dict[str, Any]:
    """What loading the network needs besides the run."""
    return {
        "classes": list(dataset.classes),
        "input_shape": [dataset.in_channels, *dataset.image_size],
        "mean": list(dataset.mean),
        "std": list(dataset.std),
    }
