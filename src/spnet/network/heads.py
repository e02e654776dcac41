"""Stage heads: a classifier after every stage but the last, whose classifier is the network's own head.

SP-Net's multi-stage classification. With `aligned`, each stage's pooled features are first mapped to the last stage's
width by a learned linear map, and the heads read those (paper's framework figure); otherwise they read pooled features
directly.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from spnet.errors import UserError, is_number


class StageHeads(nn.Module):
    """Args:
    stage_widths: of every stage's pooled features.
    aligned: map them to the last width first.
    stages: which earlier stages have a head, rising; all when left out.
    """

    def __init__(
        self, stage_widths: Sequence[int], num_classes: int, aligned: bool, stages: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.stages = tuple(stages if stages is not None else range(len(stage_widths) - 1))
        last = stage_widths[-1]
        widths = [stage_widths[stage] for stage in self.stages]
        self.aligners = nn.ModuleList(
            nn.Linear(width, last, bias=False) if aligned else nn.Identity() for width in widths
        )
        self.classifiers = nn.ModuleList(nn.Linear(last if aligned else width, num_classes) for width in widths)
        macs = [(width * last if aligned else 0) + (last if aligned else width) * num_classes for width in widths]
        by_stage = dict(zip(self.stages, macs, strict=True))
        self.macs = tuple(by_stage.get(stage, 0) for stage in range(len(stage_widths) - 1))
        """Multiply-adds per sample of each earlier stage's head; 0 where there is none."""

    def align(self, stage: int, pooled: Tensor) -> Tensor:
        return self.aligners[self.stages.index(stage)](pooled)

    def classify(self, stage: int, aligned: Tensor) -> Tensor:
        return self.classifiers[self.stages.index(stage)](aligned)


def check_exit(heads: StageHeads | None, exit_confidence: float | None) -> None:
    """Raise `UserError` where samples cannot leave a network with these heads at this confidence; None never leaves."""
    if exit_confidence is None:
        return
    if not is_number(exit_confidence) or not 0 <= exit_confidence <= 1:
        raise UserError(f"exit_confidence is a probability, such as 0.9; not {exit_confidence!r:.60}.")
    if heads is None:
        raise UserError("early exit needs stage heads: train with --with spnet, or drop exit_confidence.")
