"""Logit alignment: class logits of every stage follow those of a guide (SP-Net's guided labels).

Shapes: B samples, C classes, S stages.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spnet.errors import choose
from spnet.numerics import check_alike, mean, softmax_kl, widened


def logit_alignment(
    stage_logits: Sequence[Tensor],
    target_stage_logits: Sequence[Tensor],
    weights: Sequence[float],
    form: str = "mse",
    target: str = "same-stage",
    temperature: float = 1.0,
) -> Tensor:
    """sum_s w_s distance(o_s, o_s_target) on raw logits. The target gets no gradient.

    - `mse`: mean over samples and classes of the squared difference;
    - `kl`: mean over samples of T^2 KL(softmax(o_target / T) || softmax(o / T)), in nats; T^2 keeps the gradient's
      size.

    Source: SP-Net's L_logits; same stage [framework figure], last stage [released code], kl an option of ours.

    Args:
        stage_logits: one (B, C) per stage.
        target_stage_logits: the guide's, of the same shapes.
        weights: one per stage.
        target: `same-stage`, or `last`: the guide's last stage guides every stage.
        temperature: T of the kl form.
    """
    choose("form of logit_alignment", form, ("mse", "kl"))
    choose("target of logit_alignment", target, ("same-stage", "last"))
    if form == "mse" and temperature != 1:
        raise ValueError("temperature has no effect on the mse form of logit_alignment: use form='kl'.")
    if target == "last":
        target_stage_logits = list(target_stage_logits[-1:]) * len(stage_logits)
    check_alike("stage logits", stage_logits, target_stage_logits)
    total = torch.zeros(())
    for logits_BC, target_BC, weight in zip(stage_logits, target_stage_logits, weights, strict=True):
        logits_BC, target_BC = widened(logits_BC), widened(target_BC.detach())
        if form == "mse":
            distance = (logits_BC - target_BC).square()
        else:
            distance = softmax_kl(target_BC / temperature, logits_BC / temperature) * temperature**2
        total = total + weight * mean(distance)
    return total
