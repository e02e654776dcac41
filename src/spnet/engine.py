"""Engine: one door to inference that really skips, whatever the method and the executor."""

import importlib.util
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spnet.data import Split
from spnet.dynamic import DynamicNetwork, Executor
from spnet.errors import UserError, check_share, choose
from spnet.executors import EAGER, masked
from spnet.heads import check_exit
from spnet.measure.profile import Profile, load_profile
from spnet.trace import Trace
from spnet.training.calibrate import calibrate

if TYPE_CHECKING:
    from spnet.measure.time_budget import Latency

EXECUTORS = ("auto", *EAGER, "onnx")


class Engine:
    """Runs a trained network by the test rule: arg-max decisions, no noise, no gradient.

    `auto` takes `onnx` where it can: onnxruntime is installed, the network is on the CPU and has an ONNX form. Else it
    takes branching for one image and gathered for more. Above the cost at which skipping stops paying on this machine
    (`spnet bench` measures it) `auto` runs the static network instead: every block, no router. That is decided once,
    from the mean cost that `calibrate` reached or that `expected_cost` states, never image by image; traces then show
    full paths and the static cost, which lies above a budget given in multiply-adds. `onnx` never falls back, and
    neither does `auto` where onnxruntime is not installed or where `max_cost` bounds single images.

    Args:
        model: the network; put into eval mode, again at every call. The `onnx` executor takes its weights at the first
            image after the engine was made or calibrated: change them, and calibrate or make a new engine.
        executor: `masked` (computes every block), `branching` (an `if` per block; batch 1), `gathered` (each block
            runs on the samples that need it), `onnx` (onnxruntime: `If` for one image, gather for more, over workers),
            or `auto`.
        budget: share of the static cost; needs `calibrate` before the first image.
        threads: threads to compute with, set for all of torch in this process; None takes torch's setting.
        exit_confidence: a sample leaves at the first stage whose class probability reaches this (needs stage heads).
        expected_cost: mean cost to expect, as a share of the static cost, such as the `cost_ratio` of an evaluation.
        max_cost: share of the static cost that no single image may exceed; forced decisions are run all the same.
    """

    def __init__(
        self,
        model: DynamicNetwork,
        executor: str = "auto",
        budget: float | None = None,
        threads: int | None = None,
        exit_confidence: float | None = None,
        expected_cost: float | None = None,
        max_cost: float | None = None,
    ) -> None:
        choose("executor", executor, EXECUTORS)
        if threads is not None and threads < 1:
            raise UserError(f"threads must be at least 1, not {threads}.")
        for name, share in (("budget", budget), ("expected_cost", expected_cost)):
            if share is not None:
                check_share(name, share)
        check_exit(model.stage_heads, exit_confidence)
        if max_cost is not None:
            model.path_cost.spare(max_cost, heads=exit_confidence is not None)  # refuses what no path can meet
        self.model = model.eval()
        self.executor = executor
        self.threads = threads or torch.get_num_threads()
        self.exit_confidence = exit_confidence
        self.max_cost = max_cost
        self.expected_cost = expected_cost
        self.latency: Latency | None = None
        """What `calibrate` to a time measured; None before, and after any other calibration."""
        self._pending_budget = budget
        if executor == "onnx":
            self._refuse_onnx()
        if threads is not None:
            torch.set_num_threads(threads)

    def _refuse_onnx(self) -> None:
        """Raise `UserError` where the onnx executor cannot serve this engine."""
        if self.model.mean.device.type != "cpu":
            raise UserError("the onnx executor runs on the CPU: move the network there, or use executor 'gathered'.")
        missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(f"executor 'onnx' needs {' and '.join(missing)}: pip install 'spnet[onnx]'.")
        from spnet.executors.onnx.network import check_form

        check_form(self.model)

    @cached_property
    def _onnx_serves(self) -> bool:
        try:
            self._refuse_onnx()
        except UserError:
            return False
        return True

    @cached_property
    def _onnx(self) -> Any:
        from spnet.executors.onnx.executor import OnnxExecutor

        return OnnxExecutor(
            self.model,
            self.threads,
            router_logits=True,
            exit_confidence=self.exit_confidence,
            max_cost=self.max_cost,
        )

    @cached_property
    def _static(self) -> Any:
        from spnet.executors.onnx.executor import StaticExecutor

        return StaticExecutor(self.model, self.threads)

    @cached_property
    def _profile(self) -> Profile:
        return load_profile()

    def choice(self, batch_size: int) -> str:
        """What runs a batch of this size: `masked`, `branching`, `gathered`, `onnx` or `static` (the fallback of
        `auto`)."""
        if self.executor != "auto":
            return self.executor
        if not self._onnx_serves:
            return "branching" if batch_size == 1 else "gathered"
        limit = self._profile.single if batch_size == 1 else self._profile.batch
        saves = any(self.model.gated) or self.exit_confidence is not None
        pays = saves and (self.expected_cost is None or self.expected_cost < limit)
        return "onnx" if pays or self.max_cost is not None else "static"

    def _free(self, images: Tensor, executor: Executor = masked) -> Trace:
        """The network's own decisions in PyTorch, under this engine's rules."""
        rules = {"exit_confidence": self.exit_confidence, "max_cost": self.max_cost}
        return self.model(images, executor=executor, heads=False, **rules)

    def __call__(self, images: Tensor, force: Tensor | None = None) -> Trace:
        """Run images (B, C, H, W), uint8 or normalised float.

        Args:
            force: decisions (B, N) or (N,) to run instead of the network's own; routers are still computed.

        Raises:
            UserError: no images, images of another size, type or with NaN, decisions that name no path.
        """
        if self._pending_budget is not None:
            raise UserError("this engine has a budget but was not calibrated: call engine.calibrate(images) first.")
        return self._run(images, force)

    @torch.no_grad()
    def _run(self, images: Tensor, force: Tensor | None = None) -> Trace:
        self.model.eval()  # a training may have switched it back: inference must not touch batch-norm statistics
        if len(images) == 0:
            raise UserError("there are no images to run: give at least one.")
        if images.is_floating_point() and not bool(images.isfinite().all()):
            raise UserError("the images hold NaN or infinite values: check how they were normalised.")
        name = self.choice(len(images))
        if name == "static" and force is None:
            return self._static(images)
        if name in ("onnx", "static"):
            return self._onnx(images, force)
        if force is not None:
            return self.model.forward_path(images, force, executor=EAGER[name], heads=False)
        return self._free(images, EAGER[name])

    def calibrate(self, images: Tensor, budget: float | None = None, *, budget_ms: float | None = None) -> float:
        """Shift the decision thresholds until the mean cost on `images` is `budget`, or an image takes `budget_ms`;
        returns the cost reached.

        Early exits and a bound on single images count: the cost is what this engine will really spend.

        Args:
            images: (N, C, H, W) representative images, uint8; no labels are needed. A few hundred at least.
            budget: share of the static cost; the engine's own when left out.
            budget_ms: instead, mean wall time of an image at batch 1, in milliseconds, with this executor, on this
                machine as busy as it is now. `latency` then holds what was measured; its `runs` says `static`
                where `auto` meets the time without skipping anything.
        """
        if budget is not None and budget_ms is not None:
            raise UserError("budget is a share of the static cost, budget_ms a time per image: give one of them.")
        if images.dtype != torch.uint8:
            raise UserError(f"calibrate takes images as uint8 (0 to 255), not {images.dtype}.")
        for name in ("_onnx", "_static"):
            self.__dict__.pop(name, None)  # they hold the weights of their first image
        split = Split(images, torch.zeros(len(images), dtype=torch.int64))
        if budget_ms is not None:
            cost, self.latency = self._calibrate_to_time(split, budget_ms)
        else:
            budget = budget if budget is not None else self._pending_budget
            if budget is None:
                raise UserError("calibrate needs a budget, such as engine.calibrate(images, budget=0.6).")
            cost, self.latency = calibrate(self.model, split, budget, forward=self._free), None
        self._pending_budget = None
        self.expected_cost = cost
        return cost

    def _calibrate_to_time(self, split: Split, budget_ms: float) -> "tuple[float, Latency]":
        from spnet.measure.time_budget import calibrate_to_time, measure

        if self.executor == "masked":
            raise UserError("the masked executor takes the same time whatever is decided: use 'auto' for budget_ms.")

        def timed(cost: float) -> "Latency":
            self.expected_cost = cost  # by which `auto` chooses
            return measure(self._run, split.images, threads=self.threads, runs=self.choice(1))

        before = self.expected_cost
        try:
            return calibrate_to_time(self.model, split, budget_ms, forward=self._free, timed=timed)
        except BaseException:
            self.expected_cost = before
            raise
