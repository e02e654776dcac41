"""Multi-stage classification: a cross-entropy after every stage.

Shapes: B samples, C classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spnet.numerics import widened


def stage_classification(stage_logits: Sequence[Tensor], labels: Tensor, weights: Sequence[float]) -> Tensor:
    """sum_s w_s CE(o_s, y): mean over samples, sum over stages, in nats.

    Source: SP-Net's L_cls [released code].

    Args:
        stage_logits: one (B, C) per stage; the last stage's is the network's prediction.
        labels: (B,) class indices, or (B, C) probabilities.
        weights: one per stage.
    """
    if len(stage_logits) != len(weights):
        raise ValueError(f"stage_classification needs one weight per stage: {len(stage_logits)}, not {len(weights)}.")
    total = torch.zeros((), device=labels.device)
    for logits_BC, weight in zip(stage_logits, weights, strict=True):
        # Divided by hand: torch's own mean is NaN for an empty batch.
        total = total + weight * F.cross_entropy(widened(logits_BC), labels, reduction="sum") / max(len(labels), 1)
    return total


def default_stage_weights(stages: int) -> tuple[float, ...]:
    """The released weights: (0.1, 0.2, 1.0) for three stages, (0.01, 0.1, 0.2, 1.0) for four.

    Two stages take the last two; beyond four, earlier stages weigh 0.01 (our choice).
    """
    if stages < 1:
        raise ValueError(f"a network has at least one stage, not {stages}.")
    ends = (0.1, 0.2, 1.0)
    return (0.01,) * (stages - len(ends)) + ends[-stages:]
