"""ConvNet-AIG (Veit and Belongie, ECCV 2018, arXiv 1711.11503): a small gate before every block, straight-through
Gumbel decisions, a target rate per block.

The gate reads the block's input: pool, linear to 16, BN, ReLU, linear to 2, opening bias (0.1, 2.0). Deviations from
the
released code: no Gumbel noise at test; a target of 1 removes the gate instead of leaving it out of the loss only.
"""

from dataclasses import dataclass

from spnet.methods.gated import Gated, GatedConfig
from spnet.settings import setting


@dataclass(frozen=True)
class ConvNetAIGConfig(GatedConfig):
    target: float = setting(0.6, "execution rate every block is pulled to")
    hidden: int = setting(16, "width of the gate", at_most=16384)
    router_dropout: float = setting(0.0, "dropout inside the gate")


class ConvNetAIG(Gated):
    name = "convnet-aig"
    Config = ConvNetAIGConfig
