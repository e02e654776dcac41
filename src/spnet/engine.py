"""Engine: one door to inference that really skips, whatever the method and the executor."""

import torch
from torch import Tensor

from spnet.data import Split
from spnet.dynamic import DynamicNetwork
from spnet.errors import UserError, choose
from spnet.executors import EAGER
from spnet.trace import Trace
from spnet.training.calibrate import calibrate


class Engine:
    """Runs a trained network by the test rule: arg-max decisions, no noise, no gradient.

    Args:
        model: the network; put into eval mode.
        executor: `masked` (computes every block), `branching` (an `if` per block; batch 1), `gathered` (each block runs on the
            samples that need it), or `auto`: branching for one image, gathered for more.
        budget: share of the static cost; needs `calibrate` before the first image.
        threads: torch threads to compute with; None leaves torch's setting.
        exit_confidence: a sample leaves at the first stage whose class probability reaches this (needs stage heads).
    """

    def __init__(
        self,
        model: DynamicNetwork,
        executor: str = "auto",
        budget: float | None = None,
        threads: int | None = None,
        exit_confidence: float | None = None,
    ) -> None:
        choose("executor", executor, ("auto", *EAGER))
        if threads is not None:
            if threads < 1:
                raise UserError(f"threads must be at least 1, not {threads}.")
            torch.set_num_threads(threads)
        if budget is not None and not 0 < budget <= 1.5:
            raise UserError(f"budget is a share of the static cost, such as 0.6; not {budget}.")
        if exit_confidence is not None and not 0 <= exit_confidence <= 1:
            raise UserError(f"exit_confidence is a probability, such as 0.9; not {exit_confidence}.")
        if exit_confidence is not None and model.stage_heads is None:
            raise UserError("early exit needs stage heads: train with --with spnet, or drop exit_confidence.")
        self.model = model.eval()
        self.executor = executor
        self.exit_confidence = exit_confidence
        self._pending_budget = budget

    @torch.no_grad()
    def __call__(self, images: Tensor, force: Tensor | None = None) -> Trace:
        """Run images (B, C, H, W), uint8 or normalised float.

        Args:
            force: decisions (B, N) or (N,) to run instead of the network's own; routers are still computed.
        """
        if self._pending_budget is not None:
            raise UserError("this engine has a budget but was not calibrated: call engine.calibrate(images) first.")
        if images.is_floating_point() and not bool(images.isfinite().all()):
            raise UserError("the images hold NaN or infinite values: check how they were normalised.")
        name = self.executor
        if name == "auto":
            name = "branching" if len(images) == 1 else "gathered"
        if force is not None:
            return self.model.forward_path(images, force, executor=EAGER[name], heads=False)
        return self.model(images, executor=EAGER[name], heads=False, exit_confidence=self.exit_confidence)

    def calibrate(self, images: Tensor, budget: float | None = None) -> float:
        """Shift the decision thresholds until the mean cost on `images` is `budget`; returns the cost reached.

        Args:
            images: (N, C, H, W) representative images, uint8; no labels are needed. A few hundred at least.
            budget: share of the static cost; the engine's own when left out.
        """
        budget = budget if budget is not None else self._pending_budget
        if budget is None:
            raise UserError("calibrate needs a budget, such as engine.calibrate(images, budget=0.6).")
        cost = calibrate(self.model, Split(images, torch.zeros(len(images), dtype=torch.int64)), budget)
        self._pending_budget = None
        return cost
