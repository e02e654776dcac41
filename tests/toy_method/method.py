"""Glance: routers that remember a glance at the image, and a price on every block that runs."""

from dataclasses import dataclass

from spnet.backbones.base import Backbone
from spnet.methods import Batch, Losses, Method, MethodConfig, Phase, Step
from spnet.methods.base import classification_loss
from spnet.network.dynamic import DynamicNetwork
from spnet.network.sampling import GumbelStraightThrough
from spnet.settings import setting
from toy_method.losses import frugality
from toy_method.router import Glance


@dataclass(frozen=True)
class ToyGlanceConfig(MethodConfig):
    price: float = setting(0.1, "weight of the mean share of blocks that run")


class ToyGlance(Method):
    name = "toy-glance"
    Config = ToyGlanceConfig

    def build_router(self, backbone: Backbone) -> Glance:
        return Glance(backbone.input_shape, backbone.input_shapes, self.config.skippable(backbone))

    def phases(self, epochs: int) -> list[Phase]:
        return [Phase("glance", epochs, self.objective, GumbelStraightThrough())]

    def objective(self, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        losses = classification_loss(net, batch, step)
        losses.terms["price"] = self.config.price * frugality(losses.trace.gates)
        return losses
