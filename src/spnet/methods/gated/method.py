"""The dynamic baseline: a pooled-MLP router before each block, hard straight-through Gumbel decisions, a target rate.

Configured two ways: `dynamic` is the network SP-Net is built on (supplement Fig. 3: hidden 128, dropout 0.4; target
0.8), `convnet-aig` is Veit and Belongie's (ECCV 2018: hidden 16, no dropout; target 0.6). Same code, other numbers.
"""

from dataclasses import dataclass

from spnet.backbones.base import Backbone
from spnet.errors import UserError
from spnet.methods import warmups
from spnet.methods.base import Batch, Losses, Method, Phase, Step, classification_loss
from spnet.methods.rates import RateConfig, add_rate_terms
from spnet.network.dynamic import DynamicNetwork
from spnet.network.sampling import GumbelStraightThrough
from spnet.routers.pooled_mlp import PooledMLP
from spnet.settings import setting


@dataclass(frozen=True)
class GatedConfig(RateConfig):
    hidden: int = setting(128, "width of the router", at_most=16384)
    router_dropout: float = setting(0.4, "dropout inside the router")
    router_norm: bool = setting(True, "batch norm inside the router")
    lookahead: int = setting(1, "blocks decided by one router call; 6 removes most of the router time at batch 1")
    tau: float = setting(1.0, "Gumbel temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lookahead < 1 or self.hidden < 1 or not 0 <= self.router_dropout < 1 or self.tau <= 0:
            raise UserError("lookahead and hidden are at least 1, router_dropout lies in [0, 1), tau is positive.")


class Gated(Method):
    """The dynamic baseline (experiment E1 of the ablation ladder)."""

    name = "dynamic"
    Config = GatedConfig

    def build_router(self, backbone: Backbone) -> PooledMLP:
        c = self.config
        return PooledMLP(
            backbone.input_widths,
            backbone.options,
            c.gated(backbone),
            hidden=c.hidden,
            batch_norm=c.router_norm,
            dropout=c.router_dropout,
            lookahead=c.lookahead,
        )

    def phases(self, epochs: int) -> list[Phase]:
        dynamic = Phase("dynamic", epochs, self.objective, GumbelStraightThrough(self.config.tau))
        return warmups.after_static(self.config.static_share, epochs, dynamic)

    def objective(self, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        losses = classification_loss(net, batch, step)
        return add_rate_terms(losses, net, self.config)
