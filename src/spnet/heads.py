"""Stage heads: a classifier after every stage but the last, whose classifier is the network's own head.

SP-Net's multi-stage classification. With `aligned`, each stage's pooled features are first mapped to the last stage's
width by a learned linear map, and the heads read those (paper's framework figure); otherwise they read pooled features
directly.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from spnet.errors import UserError


class StageHeads(nn.Module):
    def __init__(self, stage_widths: Sequence[int], num_classes: int, aligned: bool) -> None:
        super().__init__()
        earlier, last = stage_widths[:-1], stage_widths[-1]
        self.aligners = nn.ModuleList(
            nn.Linear(width, last, bias=False) if aligned else nn.Identity() for width in earlier
        )
        self.classifiers = nn.ModuleList(nn.Linear(last if aligned else width, num_classes) for width in earlier)
        self.macs = tuple(
            (width * last if aligned else 0) + (last if aligned else width) * num_classes for width in earlier
        )
        """Multiply-adds per sample of each earlier stage's head."""

    def align(self, stage: int, pooled: Tensor) -> Tensor:
        return self.aligners[stage](pooled)

    def classify(self, stage: int, aligned: Tensor) -> Tensor:
        return self.classifiers[stage](aligned)


def check_exit(heads: StageHeads | None, exit_confidence: float | None) -> None:
    """Raise `UserError` where samples cannot leave a network with these heads at this confidence; None never leaves."""
    if exit_confidence is None:
        return
    if not 0 <= exit_confidence <= 1:
        raise UserError(f"exit_confidence is a probability, such as 0.9; not {exit_confidence}.")
    if heads is None:
        raise UserError("early exit needs stage heads: train with --with spnet, or drop exit_confidence.")
