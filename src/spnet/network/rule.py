"""What a skipped block is. The published dynamic networks differ in it; the differences have names here, so that every
method can run on its own rule or all on one. A method states a rule, the adapter of a family carries it out.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from spnet.errors import UserError, choose

Skip = Literal["relu", "plain", "own-projection"]
Shortcut = Literal["subsample", "avgpool", "projection"]


@dataclass(frozen=True)
class BlockRule:
    """What the options of a residual block are. s(x) is the shortcut, F(x) the residual branch, h(x) its first half,
    the tail what follows the sum: a ReLU in a ResNet.

    Attributes:
        skip: `relu`: full is tail(s + F), skip is tail(s) (ConvNet-AIG, RDI-Net, SP-Net). `plain`: skip is s, no tail
            (SkipNet, BlockDrop). `own-projection`: skip is x, at a transition ReLU(BN(conv1x1(x))) (CoDiNet).
        shortcut: at a transition of a family without projections of its own: `subsample` (stride-2 subsample, zero
            channels; no parameters), `avgpool` (2x2 mean, zero channels; BlockDrop), `projection` (1x1 convolution and
            BN; always paid).
        options: 2 (skip, full) or 3 (skip, half, full; half is tail(s + h), RDI-Net).
    """

    skip: Skip = "relu"
    shortcut: Shortcut = "subsample"
    options: int = 2

    def __post_init__(self) -> None:
        choose("skip rule", self.skip, get_args(Skip))
        choose("shortcut", self.shortcut, get_args(Shortcut))
        if self.options not in (2, 3):
            raise UserError(f"options must be 2 (skip, full) or 3 (skip, half, full), not {self.options}.")
