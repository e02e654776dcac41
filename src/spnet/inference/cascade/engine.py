"""The engine of a cascade: one engine a member, behind the door of `Engine`."""

import copy
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from spnet.data import Split
from spnet.errors import UserError, check_share
from spnet.inference.cascade.knobs import Ran, priced, tables
from spnet.inference.cascade.network import Cascade, check_normalised_alike, checked_confidences, normalised_alike
from spnet.inference.cascade.plan import OutOfReach, Planner, Setting
from spnet.inference.cascade.run import cascaded, cascaded_logits
from spnet.inference.cascade.time import meet_time
from spnet.inference.engine import FP32, Engine
from spnet.inference.memory import Memory, added, weight_bytes
from spnet.inference.programs import AUTO
from spnet.inference.runtimes.gathered import gathered
from spnet.inference.runtimes.protocol import Images, Rules
from spnet.inference.time_budget import Latency, measure
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
        precision: str = FP32,
        calibration: Images | None = None,
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
        self._rules = Rules(exit_confidence)
        self.expected_cost = None
        self.latency: Latency | None = None
        self._pending_budget = budget
        self._own_confidences: tuple[float, ...] | None = None
        if exit_confidence is not None:
            self._own_confidences = checked_confidences(exit_confidence, len(self.engines))
        self._alike = normalised_alike(model)
        if (images := self._to_calibrate_on(precision, calibration)) is not None:
            self._check_alike(images)
            self._quantise(images)

    def _quantise(self, checked: Images) -> None:
        """Every member, on all of the images, also those that it will not be shown."""
        for k, engine in enumerate(self.engines, 1):
            try:
                engine._quantise(checked)
            except UserError as error:
                raise UserError(f"member {k} of the cascade: {error}") from error

    @property
    def rules(self) -> Rules:
        """What was asked for, whatever the members run under."""
        return self._rules

    @property
    def precision(self) -> str:
        """Of all members."""
        return self.engines[0].precision

    @property
    def threads(self) -> int:
        return self.engines[0].threads

    @property
    def confidences(self) -> tuple[float, ...]:
        """Those in force: this engine's own once it was calibrated, before that the cascade's."""
        return self.model.confidences if self._own_confidences is None else self._own_confidences

    @property
    def exits(self) -> int:
        return len(self.engines)

    @property
    def decision_shifts(self) -> tuple[float, ...]:
        """The members' thresholds in force."""
        return tuple(engine.decision_shift for engine in self.engines)

    @property
    def decision_shift(self) -> float:
        raise UserError("a cascade has a threshold for each member: ask for decision_shifts.")

    def _forget_programs(self) -> None:
        for engine in self.engines:
            engine._forget_programs()

    def __getstate__(self) -> dict[str, Any]:
        """A copy has members' engines of its own, for it may be calibrated."""
        return {**self.__dict__, "engines": [copy.copy(engine) for engine in self.engines]}

    def choice(self, batch_size: int) -> str:
        """What runs a batch of this size that reaches every member, such as `static+onnx`."""
        return "+".join(engine.choice(batch_size) for engine in self.engines)

    def _answer(self, checked: Images, force: Tensor | None = None) -> Trace:
        if force is not None:
            raise UserError("a cascade's decisions cannot be forced: force those of a member.")
        self._check_alike(checked)
        return cascaded(self.model, [engine._answer for engine in self.engines], checked, self.confidences)

    def _logits(self, checked: Images, shift: float | None = None) -> np.ndarray:
        self._check_alike(checked)
        return cascaded_logits([engine._logits for engine in self.engines], checked, self.confidences)

    def _check_alike(self, checked: Images) -> None:
        if not self._alike and checked.dtype not in (torch.uint8, np.uint8):
            check_normalised_alike(self.model)

    def warm_up(self, batch_size: int = 1) -> Self:
        """Every member, also those that these images would not reach; a later one for single images too, for any
        number may go on to it."""
        self._check_calibrated()
        for k, engine in enumerate(self.engines):
            engine.warm_up(batch_size)
            if k and batch_size > 1:
                engine.warm_up()
        return self

    @property
    def memory(self) -> Memory:
        return Memory(weight_bytes(self.model), added(engine.memory.opened for engine in self.engines))

    def settle(self) -> None:
        """Put this engine's knobs into its cascade and the members."""
        self.model.confidences = self.confidences
        for engine in self.engines:
            engine.settle()

    def _calibrate_to_share(self, split: Split, budget: float) -> float:
        return self.meet(self.planner(split.images), budget)

    def planner(self, images: Tensor) -> Planner:
        """What these images, uint8, say about every setting of the knobs; costs in multiply-adds. For several budgets:
        `calibrate` asks for it each time."""
        return Planner(self._tables(images))

    def meet(self, planner: Planner, budget: float) -> float:
        """Put the setting in force that `calibrate(images, budget)` would; returns its cost."""
        check_share("budget", budget)
        static = self.model.static_macs
        try:
            setting = planner.meet(budget * static)
        except OutOfReach as missed:
            raise missed.told(f"budget {budget}", lambda cost: f"{cost / static:.3f} of the static cost") from None
        self._take(planner, setting)
        return setting.cost / static

    def _tables(self, images: Tensor) -> list[list[Ran]]:
        if not len(images):
            raise UserError("there are no images to calibrate on: give a few hundred.")
        if self.exit_confidence is not None:
            raise UserError("exit_confidence sets a cascade's confidences, and so does a budget: give one of them.")
        runs = []
        for engine in self.engines:
            program = engine._programs.counter(gathered)
            runs.append(lambda part, shift, program=program: program(part, None, shift))
        return tables(self.model.networks, runs, images)

    def _take(self, planner: Planner, setting: Setting) -> None:
        """Put a setting in force."""
        self._own_confidences = setting.confidences
        for k, (engine, reached) in enumerate(zip(self.engines, planner.reaching(setting), strict=True)):
            ran = planner.table[k][setting.chosen[k]]
            engine._own_shift = ran.shift
            engine.expected_cost = float(ran.macs[reached].mean()) / engine.model.static_macs if reached.any() else None

    def _knobs(self) -> tuple[Any, ...]:
        """All that `_take` sets."""
        return self._own_confidences, *((engine._own_shift, engine.expected_cost) for engine in self.engines)

    def _restore(self, knobs: tuple[Any, ...]) -> None:
        self._own_confidences, *members = knobs
        for engine, (shift, cost) in zip(self.engines, members, strict=True):
            engine._own_shift, engine.expected_cost = shift, cost

    def _calibrate_to_time(self, split: Split, budget_ms: float | str) -> tuple[float, Latency]:
        if self.executor == "masked":
            raise UserError("the masked executor takes the same time whatever is decided: use 'auto' for budget_ms.")
        before = self._knobs()
        try:
            return self._meet_time(split.images, budget_ms)
        except BaseException:
            self._restore(before)
            raise

    def _meet_time(self, images: Tensor, budget_ms: float | str) -> tuple[float, Latency]:
        """Each member is timed at each of its thresholds, which gives every setting a price in milliseconds."""
        table = self._tables(images)
        for engine, rans in zip(self.engines, table, strict=True):
            for k, ran in enumerate(rans):
                engine._own_shift, engine.expected_cost = ran.shift, ran.macs.mean() / engine.model.static_macs
                rans[k] = priced(ran, self._timed(engine, images).milliseconds_per_image)
        planner = Planner(table)

        def timed(setting: Setting) -> Latency:
            self._take(planner, setting)
            return self._timed(self, images)

        setting, latency = meet_time(planner, timed, budget_ms)
        self._take(planner, setting)
        return planner.macs(setting) / self.model.static_macs, latency

    def _timed(self, engine: Engine, images: Tensor) -> Latency:
        return measure(engine._run, images, threads=self.threads, runs=engine.choice(1))
