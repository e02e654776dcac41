"""Self-distillation: what a network says on a cheap path follows what it says with every block run.

Shapes: B samples, C classes.
"""

from torch import Tensor

from spnet.numerics import check_alike, mean, softmax_kl


def self_distillation(logits_BC: Tensor, full_BC: Tensor) -> Tensor:
    """Mean over samples of KL(softmax(full) || softmax(logits)) in nats. The full path's logits get no gradient.

    Source: slimmable networks' in-place distillation (Yu and Huang, ICCV 2019), where the widest network teaches the
    narrower ones in the same step; adaptive depth networks (NeurIPS 2024) do it with the deepest. One step, not
    ensembled, temperature 1.

    Args:
        logits_BC: of a path that skips.
        full_BC: of the same samples with every block run.
    """
    check_alike("logits", (logits_BC,), (full_BC,))
    return mean(softmax_kl(full_BC.detach(), logits_BC))
