"""Engine: one door to inference that really skips, whatever the method and the runtime."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from spnet.data import Split
from spnet.errors import UserError, check_count, check_share, choose
from spnet.inference.calibrate import calibrate
from spnet.inference.cascade import Cascade, Model
from spnet.inference.images import checked
from spnet.inference.memory import Memory, weight_bytes
from spnet.inference.programs import AUTO, Programs
from spnet.inference.runtimes.masked import masked
from spnet.inference.runtimes.protocol import Images, Rules
from spnet.inference.runtimes.registry import RUNTIMES
from spnet.network.dynamic import DynamicNetwork
from spnet.network.heads import check_exit
from spnet.network.trace import Trace

if TYPE_CHECKING:
    from spnet.inference.time_budget import Latency

EXECUTORS = (AUTO, *RUNTIMES)
FP32, INT8 = PRECISIONS = ("fp32", "int8")
FAR = 1e6
"""A threshold beyond all router logits: every block runs, and with the other sign none that can be skipped."""


class Engine:
    """Runs a trained network by the test rule: arg-max decisions, no noise, no gradient.

    `auto` takes `onnx` where it can: onnxruntime is installed, the network is on the CPU and has an ONNX form. Else it
    takes branching for one image and gathered for more. Above the cost at which skipping stops paying on this machine
    (`spnet bench` measures it) `auto` runs the static network instead: every block, no router. That is decided once,
    from the mean cost that `calibrate` reached or that `expected_cost` states, never image by image; traces then show
    full paths and the static cost, which lies above a budget given in multiply-adds. `onnx` never falls back, and
    neither does `auto` where onnxruntime is not installed or where `max_cost` bounds single images.

    Of a `Cascade` the engine has one for each member: each runs on what suits it, and an image that the first is sure
    of pays no other. Decisions of a cascade cannot be forced.

    `predict` gives classes and probabilities without a trace, `warm_up` opens everything before the first image,
    `memory` says what is held.

    One engine serves several threads at once. A forked child and a pickled or copied engine open sessions of their own.

    Args:
        model: the network or cascade; eager executors put it into eval mode. The `onnx` executor takes its weights at
            the first image after the engine was made or calibrated: change them, and calibrate or make a new engine.
        executor: `masked` (computes every block), `branching` (an `if` per block; batch 1), `gathered` (each block
            runs on the samples that need it), `onnx` (onnxruntime: `If` for one image, gather for more, over workers),
            or `auto`.
        budget: share of the static cost; needs `calibrate` before the first image.
        threads: threads to compute with; None takes torch's setting. Torch's own setting stays as it is.
        exit_confidence: a sample leaves at the first stage whose class probability reaches this (needs stage heads); of
            a cascade, instead of its own confidences: at the first member whose class probability is above this.
        expected_cost: mean cost to expect, as a share of the static cost, such as the `cost_ratio` of an evaluation.
        max_cost: share of the static cost that no single image may exceed; forced decisions are run all the same.
            Neither is for cascades.
        precision: `fp32`, or `int8` on executor `onnx`: 8-bit weights and features, routers in fp32. It takes the
            weights when the engine is made. How accurate and how fast that is here, `spnet export --int8` says.
        calibration: for int8, images like those trained on, whose features set the scales; a few hundred. Of a cascade
            every member is quantised on all of them.

    Raises:
        UserError: no network, an unknown executor or one that cannot serve this network, a value that is no share.

    Example:
        >>> engine = spnet.Engine(spnet.load("runs/digits"), "branching")
        >>> trace = engine(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
        >>> tuple(trace.logits.shape), len(trace.decisions[0])
        ((1, 10), 3)
        >>> classes, probabilities = engine.warm_up().predict(torch.zeros(1, 1, 8, 8))
        >>> classes.shape, probabilities.shape, engine.memory.weights > 100_000
        ((1,), (1, 10), True)
    """

    def __new__(cls, model: Any = None, *_: Any, **__: Any) -> Self:
        """A cascade's engine is one for each member behind the same door."""
        if cls is Engine and isinstance(model, Cascade):
            from spnet.inference.cascade.engine import CascadeEngine

            return super().__new__(CascadeEngine)  # type: ignore[arg-type]
        return super().__new__(cls)

    def __init__(
        self,
        model: Model,
        executor: str = AUTO,
        budget: float | None = None,
        threads: int | None = None,
        exit_confidence: float | None = None,
        expected_cost: float | None = None,
        max_cost: float | None = None,
        precision: str = FP32,
        calibration: Images | None = None,
    ) -> None:
        if not isinstance(model, DynamicNetwork):
            raise UserError(
                f"Engine takes a network, such as spnet.load('cifar10') or spnet.create_model(...); not {model!r:.40}."
            )
        choose("executor", executor, EXECUTORS)
        if threads is not None:
            check_count("threads", threads)
        for name, share in (("budget", budget), ("expected_cost", expected_cost)):
            if share is not None:
                check_share(name, share)
        check_exit(model.stage_heads, exit_confidence)
        if max_cost is not None:
            model.path_cost.spare(max_cost, heads=exit_confidence is not None)  # refuses what no path can meet
        self.model = model.eval()
        self._input_shape = tuple(model.input_shape)
        self.executor = executor
        self._programs = Programs(self.model, executor, Rules(exit_confidence, max_cost), threads)
        self.expected_cost = expected_cost
        self.latency: Latency | None = None
        """What `calibrate` to a time measured; None before, and after any other calibration."""
        self._own_shift: float | None = None
        self._pending_budget = budget
        if executor != AUTO and (reason := RUNTIMES[executor].why_not(model)):
            raise UserError(reason)
        if (images := self._to_calibrate_on(precision, calibration)) is not None:
            self._quantise(images)

    def _to_calibrate_on(self, precision: str, calibration: Images | None) -> Images | None:
        """The images for int8, checked; None where fp32 is asked for."""
        if choose("precision", precision, PRECISIONS) == FP32:
            if calibration is not None:
                raise UserError("calibration images set the scales of int8: add precision='int8', or leave them out.")
            return None
        if self.executor == AUTO:
            raise UserError("int8 is never chosen by 'auto', for it costs accuracy: name executor='onnx'.")
        if calibration is None:
            raise UserError("int8 takes its scales from training images: give a few hundred as calibration=images.")
        return checked(calibration, self.model, self._input_shape)

    def _quantise(self, checked: Images) -> None:
        int8 = RUNTIMES[self.executor].quantise(self.model, checked)
        self._programs.rules = replace(self._programs.rules, int8=int8)

    @property
    def rules(self) -> Rules:
        return self._programs.rules

    @property
    def precision(self) -> str:
        return FP32 if self.rules.int8 is None else INT8

    @property
    def exit_confidence(self) -> float | None:
        return self.rules.exit_confidence

    @property
    def max_cost(self) -> float | None:
        return self.rules.max_cost

    @property
    def exits(self) -> int:
        """Places where an image may leave, `exit_stage` of a trace says at which it did; 1 where all run to the end."""
        return 1 if self.exit_confidence is None else len(self.model.stage_lengths)

    @property
    def threads(self) -> int:
        """Threads to compute with."""
        return self._programs.threads

    @property
    def decision_shift(self) -> float:
        """The threshold in force: this engine's own once it was calibrated, before that the network's."""
        return float(self.model.decision_shift) if self._own_shift is None else self._own_shift

    def __getstate__(self) -> dict[str, Any]:
        """A pickled or copied engine opens programs of its own."""
        return {**self.__dict__, "_programs": copy.copy(self._programs)}

    def _forget_programs(self) -> None:
        self._programs.forget()

    def choice(self, batch_size: int) -> str:
        """What runs a batch of this size: `masked`, `branching`, `gathered`, `onnx` or `static` (the fallback of
        `auto`)."""
        return self._programs.choice(batch_size, self.expected_cost)

    def __call__(self, images: Images, force: Tensor | None = None) -> Trace:
        """Run images (B, C, H, W), uint8 or normalised float, a tensor or an array.

        Args:
            force: decisions (B, N) or (N,) to run instead of the network's own; routers are still computed.

        Raises:
            UserError: no images, images of another size, type or with NaN, decisions that name no path.
        """
        self._check_calibrated()
        return self._run(images, force)

    def predict(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Classes (B,) int64 and probabilities (B, classes) of images (B, C, H, W), uint8 or normalised float, a tensor
        or an array; numpy arrays come out, whatever went in. The decisions are those of a call, but nothing is kept
        of them: no trace is made.

        Raises:
            UserError: as a call.

        Example:
            >>> engine = spnet.Engine(spnet.load("runs/digits")).warm_up()
            >>> classes, probabilities = engine.predict(torch.zeros(2, 1, 8, 8))
            >>> classes.shape, probabilities.shape
            ((2,), (2, 10))
        """
        self._check_calibrated()
        logits = self._run_for_logits(images)
        classes = logits.argmax(1)
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        return classes, probabilities

    def warm_up(self, batch_size: int = 1) -> Self:
        """Do now what the first image would wait for: open what runs batches of this size, and run a few, through all
        blocks, past all, and by the network's own decisions. Returns the engine.

        Raises:
            UserError: batch_size is no number from 1 on; the engine has a budget and was not calibrated.
        """
        check_count("batch_size", batch_size)
        self._check_calibrated()
        images = np.random.default_rng(0).integers(0, 256, (batch_size, *self._input_shape), np.uint8)
        for shift in (FAR, -FAR, self._own_shift):
            self._logits(images, shift)
        return self

    @property
    def memory(self) -> Memory:
        """Bytes of the weights, and what this process grew by when this engine opened what runs them."""
        return Memory(weight_bytes(self.model), self._programs.growth.total)

    def _check_calibrated(self) -> None:
        if self._pending_budget is not None:
            raise UserError("this engine has a budget but was not calibrated: call engine.calibrate(images) first.")

    def _run(self, images: Images, force: Tensor | None = None) -> Trace:
        return self._answer(checked(images, self.model, self._input_shape), force)

    def _answer(self, checked: Images, force: Tensor | None = None) -> Trace:
        """As a call, for images that were checked."""
        batch = len(checked), force is not None, self.expected_cost
        return self._programs.run(*batch, lambda program: program(checked, force, self._own_shift))

    def _run_for_logits(self, images: Images) -> np.ndarray:
        return self._logits(checked(images, self.model, self._input_shape))

    def _logits(self, checked: Images, shift: float | None = None) -> np.ndarray:
        """(B, classes) of images that were checked; at the engine's own threshold where none is given."""
        shift = self._own_shift if shift is None else shift
        return self._programs.run(
            len(checked), False, self.expected_cost, lambda program: program.logits(checked, shift)
        )

    def _counting(self) -> Callable[[Tensor], Trace]:
        program = self._programs.counter(masked)
        return lambda images: program(images, None, self._own_shift)

    def calibrate(self, images: Images, budget: float | None = None, *, budget_ms: float | str | None = None) -> float:
        """Shift this engine's decision threshold until the mean cost on `images` is `budget`, or an image takes
        `budget_ms`; returns the cost reached. The network, and other engines of it, keep theirs. Of a cascade all knobs
        are set together: see `spnet.inference.cascade.knobs`.

        Early exits and a bound on single images count: the cost is what this engine will really spend.

        Args:
            images: (N, C, H, W) representative images, uint8; no labels are needed. A few hundred at least.
            budget: share of the static cost; the engine's own when left out.
            budget_ms: instead, mean wall time of an image at batch 1, in milliseconds, with this executor, on this
                machine as busy as it is now; or "50%", that far from the fastest to the slowest it can be here.
                `latency` then holds what was measured; its `runs` says `static` where `auto` meets the time without
                skipping anything.
        """
        if budget is not None and budget_ms is not None:
            raise UserError("budget is a share of the static cost, budget_ms a time per image: give one of them.")
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(images)
        if not isinstance(images, torch.Tensor):
            raise UserError(f"calibrate takes images as a tensor or an array, not {type(images).__name__}.")
        if images.dtype != torch.uint8:
            raise UserError(f"calibrate takes images as uint8 (0 to 255), not {images.dtype}.")
        self._forget_programs()  # they hold the weights of their first image
        split = Split(images, torch.zeros(len(images), dtype=torch.int64))
        if budget_ms is not None:
            cost, self.latency = self._calibrate_to_time(split, budget_ms)
        else:
            budget = budget if budget is not None else self._pending_budget
            if budget is None:
                raise UserError("calibrate needs a budget, such as engine.calibrate(images, budget=0.6).")
            cost = self._calibrate_to_share(split, budget)
            self.latency = None
        self._pending_budget = None
        self.expected_cost = cost
        return cost

    def settle(self) -> None:
        """Put this engine's threshold into its network, where whatever else runs the network finds it."""
        self.model.decision_shift.fill_(self.decision_shift)

    def _calibrate_to_share(self, split: Split, budget: float) -> float:
        return calibrate(self.model, split, budget, forward=self._counting(), threshold=_OwnThreshold(self))

    def _calibrate_to_time(self, split: Split, budget_ms: float | str) -> "tuple[float, Latency]":
        from spnet.inference.time_budget import calibrate_to_time, measure

        if self.executor == "masked":
            raise UserError("the masked executor takes the same time whatever is decided: use 'auto' for budget_ms.")

        def timed(cost: float) -> "Latency":
            self.expected_cost = cost  # by which `auto` chooses
            return measure(self._run, split.images, threads=self.threads, runs=self.choice(1))

        before = self.expected_cost
        try:
            return calibrate_to_time(
                self.model, split, budget_ms, forward=self._counting(), timed=timed, threshold=_OwnThreshold(self)
            )
        except BaseException:
            self.expected_cost = before
            raise


class _OwnThreshold:
    """An engine's threshold, for the search: None follows the network."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def read(self) -> float | None:
        return self.engine._own_shift

    def move(self, shift: float | None) -> None:
        self.engine._own_shift = shift
