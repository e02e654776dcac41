"""Does a graph compute what the eager network computes? The referee of every executor and export.

Shapes: B samples, N blocks.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spnet.inference.runtimes.onnx.forcing import force_bias
from spnet.inference.runtimes.onnx.walk import Rules
from spnet.network.dynamic import DynamicNetwork
from spnet.network.trace import UNREACHED, Trace

LOGIT_TOLERANCE = 1e-4
"""Largest difference of class logits, relative to a sample's largest logit."""
MARGIN = 1e-4
"""Decisions must agree where the best router logit leads by more than this."""

ALL_OF_IT = 2**40
"""An allowance that no network uses up."""

Run = Callable[[np.ndarray, np.ndarray | None], list[np.ndarray]]
"""(images, router bias or None) -> [logits, decisions]."""
RunUnderRules = Callable[[np.ndarray, dict[str, Any]], list[np.ndarray]]
"""(images, the graph's other inputs) -> what `OnnxExecutor.arrays` returns."""


def probe(net: DynamicNetwork, paths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random images and as many paths (B, N): every block in full, every block skipped, then `paths` random ones."""
    generator = torch.Generator().manual_seed(seed)
    full = torch.tensor(net.options) - 1
    least = net.cheapest_path.cpu()
    share = torch.rand(paths, len(full), generator=generator)
    drawn = least + (share * (full - least + 1)).long()
    decisions = torch.cat([full[None], least[None], drawn])
    return torch.randn(len(decisions), *net.input_shape, generator=generator), decisions


@torch.no_grad()
def disagreement(net: DynamicNetwork, images: Tensor, decisions: Tensor, run: Run) -> str | None:
    """One line about the first thing that differs on forced paths, or None. Images (B, C, H, W), decisions (B, N)."""
    eager = net.forward_path(images, decisions, heads=False)
    logits, decided = run(_floats(net, images), force_bias(net, decisions))[:2]
    if not np.array_equal(decided, decisions.numpy()):
        return "it does not follow forced decisions"
    error = relative_error(logits, eager.logits)
    return None if error <= LOGIT_TOLERANCE else f"its logits differ by {error:.1e} of the largest on a forced path"


@torch.no_grad()
def own_decisions_disagreement(net: DynamicNetwork, images: Tensor, run: Run) -> tuple[str | None, int, float]:
    """(first difference or None, samples with a decision too close to call, largest logit error of the others)."""
    eager = net(images, heads=False)
    logits, decided = run(_floats(net, images), None)[:2]
    clear = clear_samples(net, eager)
    if not np.array_equal(decided[clear], eager.decisions.numpy()[clear]):
        return "its decisions differ where the routers are sure", int((~clear).sum()), float("inf")
    error = relative_error(logits[clear], eager.logits[torch.from_numpy(clear)])
    wrong = None if error <= LOGIT_TOLERANCE else f"its logits differ by {error:.1e} of the largest"
    return wrong, int((~clear).sum()), error


def clear_samples(net: DynamicNetwork, trace: Trace, exit_confidence: float | None = None) -> np.ndarray:
    """(B,) bool: every decision the sample came to has a margin above `MARGIN`, the calibrated threshold included; so
    has every stage head's confidence above or below `exit_confidence`."""
    clear = torch.ones(len(trace.logits), dtype=torch.bool)
    for i, logits in zip(net.gated_indices, trace.router_logits, strict=True):
        best = (logits + net.decision_shift * net.option_costs(i)).topk(2, 1).values
        clear &= (best[:, 0] - best[:, 1] > MARGIN) | (trace.decisions[:, i] == UNREACHED)
    if exit_confidence is not None:
        assert net.stage_heads is not None, "early exit needs stage heads"
        for stage, logits in zip(net.stage_heads.stages, trace.stage_logits, strict=False):
            margin = (logits.softmax(1).amax(1) - exit_confidence).abs()
            clear &= (margin > MARGIN) | (trace.exit_stage < stage)
    return clear.numpy()


def difference_under_rules(
    plain: RunUnderRules, other: RunUnderRules, images: np.ndarray, biases: np.ndarray, rules: Rules
) -> str | None:
    """One line about the first thing in which two graphs with the same rules differ, or None: images (B, C, H, W) by
    their own decisions, then all on one forced path after another (bias (paths, R)), with nobody, about half and
    everybody leaving at the first stage."""
    free: dict[str, Any] = {"allowance": np.array([[ALL_OF_IT]])} if rules.bounded else {}
    thresholds: list[float | None] = [None]
    if rules.exits:
        nobody, everybody = 2.0, 0.0
        first = plain(images, {**free, "exit_confidence": np.array(everybody, np.float32)})[0]
        confidence = torch.from_numpy(first).softmax(1).amax(1)
        thresholds = [nobody, float(confidence.median()) + MARGIN, everybody]
    for bias in (np.zeros_like(biases[0]), *biases):
        for threshold in thresholds:
            exits = {} if threshold is None else {"exit_confidence": np.array(threshold, np.float32)}
            forced = {"router_bias": bias[None]} if bias.size else {}
            expected, found = (run(images, {**free, **exits, **forced}) for run in (plain, other))
            whole = [[part for part in outputs if part.dtype.kind == "i"] for outputs in (expected, found)]
            if not all(np.array_equal(a, b) for a, b in zip(*whole, strict=True)):
                return "samples take other ways"
            error = relative_error(found[0], torch.from_numpy(expected[0]))
            if error > LOGIT_TOLERANCE:
                return f"logits differ by {error:.1e} of the largest"
    return None


def relative_error(logits: np.ndarray, expected: Tensor) -> float:
    """Largest difference over each sample's largest absolute logit; 0 for no samples, inf for NaN."""
    if len(logits) == 0:
        return 0.0
    wanted = expected.double().numpy()
    scale = np.abs(wanted).max(1).clip(min=1e-12)
    error = float((np.abs(logits - wanted).max(1) / scale).max())
    return error if np.isfinite(error) else float("inf")


def _floats(net: DynamicNetwork, images: Tensor) -> np.ndarray:
    return net.prepare(images).float().numpy()
