"""The way of a batch through a cascade, and what the members found as one trace."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from spnet.inference.runtimes.protocol import Images
from spnet.network.trace import UNREACHED, LazyTrace, Trace

if TYPE_CHECKING:
    from spnet.inference.cascade.network import Cascade

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """What a member made of the images that reached it: `rows` of the batch, ascending."""

    rows: np.ndarray
    trace: Trace


def cascaded(
    cascade: "Cascade", runs: Sequence[Callable[[Any], Trace]], images: Images, confidences: Sequence[float]
) -> LazyTrace:
    """Run a batch through the cascade; `runs`: of each member, images -> trace."""
    steps = [Step(rows, trace) for rows, trace in _reached(runs, images, confidences, attrgetter("logits"))]
    return LazyTrace(_Ran(cascade, steps, len(images)))


def cascaded_logits(
    runs: Sequence[Callable[[Any], np.ndarray]], images: Images, confidences: Sequence[float]
) -> np.ndarray:
    """(B, classes) of the members that answered, and no trace; `runs`: of each member, images -> logits."""
    (_, whole), *later = _reached(runs, images, confidences, lambda logits: logits)
    for rows, logits in later:
        whole[rows] = logits
    return whole


def _reached(
    runs: Sequence[Callable[[Any], T]],
    images: Images,
    confidences: Sequence[float],
    logits_of: Callable[[T], Tensor | np.ndarray],
) -> Iterator[tuple[np.ndarray, T]]:
    """The only loop over members: of each that an image reaches, the rows of the batch it ran on and what it found."""
    rows = np.arange(len(images))
    for k, (run, confidence) in enumerate(zip(runs, (*confidences, -math.inf), strict=True), 1):
        found = run(images if len(rows) == len(images) else _taken(images, rows))
        yield rows, found
        rows = rows[sureness(logits_of(found)) <= confidence] if k < len(runs) else rows[:0]
        if not len(rows):
            break


def sureness(logits: Tensor | np.ndarray) -> np.ndarray:
    """(B,) largest probability of each row's softmax, in double precision: in single precision many images of a
    well-trained network are sure to exactly 1, and no confidence could tell them apart. By numpy, which costs a tenth
    of torch at one image."""
    try:
        array = logits if isinstance(logits, np.ndarray) else logits.numpy()
    except (RuntimeError, TypeError):  # it carries a gradient, lies on another device, or numpy has no such type
        array = torch.as_tensor(logits).detach().cpu().double().numpy()
    array = array.astype(np.float64)
    array -= np.maximum.reduce(array, 1, keepdims=True)
    return 1 / np.add.reduce(np.exp(array), 1)


def _taken(images: Images, rows: np.ndarray) -> Images:
    if isinstance(images, Tensor):
        return images[torch.from_numpy(rows).to(images.device)]
    return images[rows]


class _Ran:
    """What the members made of a batch, as the fields of a trace."""

    def __init__(self, cascade: "Cascade", steps: list[Step], batch: int) -> None:
        self.networks = cascade.networks
        self.steps = steps
        self.batch = batch

    def _spread(self, step: Step, value: Tensor, whole: Tensor) -> Tensor:
        """`whole` with the rows of a step replaced by `value`."""
        return whole.index_copy(0, torch.from_numpy(step.rows).to(whole.device), value.to(whole.dtype))

    def _steps(self) -> list[Step | None]:
        """One a member."""
        return [*self.steps, *[None] * (len(self.networks) - len(self.steps))]

    def logits(self) -> Tensor:
        logits = self.steps[0].trace.logits
        for step in self.steps[1:]:
            logits = self._spread(step, step.trace.logits, logits)
        return logits

    def stage_logits(self) -> tuple[Tensor, ...]:
        answer = self.logits()
        return tuple(
            answer if step is None else self._spread(step, step.trace.logits, answer) for step in self._steps()
        )

    def exit_stage(self) -> Tensor:
        stage = torch.zeros(self.batch, dtype=torch.int64, device=self.steps[0].trace.logits.device)
        for k, step in enumerate(self.steps):
            stage = self._spread(step, torch.full((len(step.rows),), k, device=stage.device), stage)
        return stage

    def macs(self) -> Tensor:
        total = self.steps[0].trace.macs
        for step in self.steps[1:]:
            total = total.index_add(0, torch.from_numpy(step.rows).to(total.device), step.trace.macs)
        return total

    def decisions(self) -> Tensor:
        first = self.steps[0].trace.decisions
        columns = []
        for network, step in zip(self.networks, self._steps(), strict=True):
            whole = first.new_full((self.batch, len(network.blocks)), UNREACHED)
            columns.append(whole if step is None else self._spread(step, step.trace.decisions, whole))
        return torch.cat(columns, 1)

    def router_logits(self) -> tuple[Tensor, ...]:
        found = []
        for network, step in zip(self.networks, self._steps(), strict=True):
            given = () if step is None else step.trace.router_logits
            for j, i in enumerate(network.gated_indices):
                whole = torch.zeros(self.batch, network.options[i], device=self.steps[0].trace.logits.device)
                found.append(self._spread(step, given[j].float(), whole) if step is not None and given else whole)
        return tuple(found)

    def log_prob(self) -> Tensor:
        gated = sum(len(network.gated_indices) for network in self.networks)
        return torch.zeros(self.batch, gated, device=self.steps[0].trace.logits.device)
