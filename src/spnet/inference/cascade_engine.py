"""The engine of a cascade: one engine a member, behind the door of `Engine`."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spnet.errors import UserError, check_share
from spnet.inference.cascade import Cascade, cascaded, check_normalised_alike, checked_confidences, normalised_alike
from spnet.inference.engine import AUTO, Engine
from spnet.inference.runtimes.protocol import Images, Rules
from spnet.inference.time_budget import Latency
from spnet.network.trace import Trace


class CascadeEngine(Engine):
    """What `Engine(cascade)` makes. Beside what every engine has:

    Attributes:
        engines: one for each member, with its own runtime, threshold and expected cost.
    """

    model: Cascade  # type: ignore[assignment]

    def __init__(
        self,
        model: Cascade,
        executor: str = AUTO,
        budget: float | None = None,
        threads: int | None = None,
        exit_confidence: float | None = None,
        expected_cost: float | None = None,
        max_cost: float | None = None,
    ) -> None:
        for name, value in (("max_cost", max_cost), ("expected_cost", expected_cost)):
            if value is not None:
                raise UserError(f"{name} is for one network: a cascade takes a budget, or confidences.")
        if budget is not None:
            check_share("budget", budget)
        self.engines = [Engine(member, executor, threads=threads) for member in model.networks]
        self.model = model.eval()
        self._input_shape = tuple(model.input_shape)
        self.executor = executor
        self.rules = Rules(exit_confidence)
        self.expected_cost = None
        self.latency: Latency | None = None
        self._threads = threads
        self._pending_budget = budget
        self._own_confidences: tuple[float, ...] | None = None
        if exit_confidence is not None:
            self._own_confidences = checked_confidences(exit_confidence, len(self.engines))
        self._alike = normalised_alike(model)
        self._forget_programs()

    @property
    def confidences(self) -> tuple[float, ...]:
        """Those in force: this engine's own once it was calibrated, before that the cascade's."""
        return self.model.confidences if self._own_confidences is None else self._own_confidences

    @property
    def decision_shifts(self) -> tuple[float, ...]:
        """The members' thresholds in force."""
        return tuple(engine.decision_shift for engine in self.engines)

    @property
    def decision_shift(self) -> float:
        raise UserError("a cascade has a threshold for each member: ask for decision_shifts.")

    def _forget_programs(self) -> None:
        super()._forget_programs()
        for engine in self.engines:
            engine._forget_programs()

    def __getstate__(self) -> dict[str, Any]:
        """A copy has members' engines of its own, for it may be calibrated."""
        return {**super().__getstate__(), "engines": [copy.copy(engine) for engine in self.engines]}

    def choice(self, batch_size: int) -> str:
        """What runs a batch of this size that reaches every member, such as `static+onnx`."""
        return "+".join(engine.choice(batch_size) for engine in self.engines)

    def _answer(self, checked: Images, force: Tensor | None = None) -> Trace:
        if force is not None:
            raise UserError("a cascade's decisions cannot be forced: force those of a member.")
        if not self._alike and checked.dtype not in (torch.uint8, np.uint8):
            check_normalised_alike(self.model)
        return cascaded(self.model, [engine._answer for engine in self.engines], checked, self.confidences)
