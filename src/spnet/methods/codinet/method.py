"""CoDiNet (Wang et al., TPAMI 2021, arXiv 2005.14439): paths of an image's copies stay close, others apart.

A path is a point in a routing space. Each image is trained in several augmented copies: consistency holds their paths
together, diversity keeps the centres of different images apart, a cost term fixes how many blocks run. The copies are
the supervision; the path losses read no labels.

Deviations from the released code, all of whose own terms default to 0: weights and margins are ours; consistency and
diversity have a weight each; the cost term is per sample, not a sum over the batch; no Gumbel noise at test; option 0
is *skip* (its index 0 is *run*).
"""

from dataclasses import dataclass

from spnet.backbones.base import Backbone
from spnet.errors import UserError
from spnet.losses import consistency, diversity, path_vectors
from spnet.methods import warmups
from spnet.methods.base import Batch, Losses, Method, Phase, Step, backbone_only, classification_loss
from spnet.methods.codinet.linear import TwoLinears
from spnet.methods.rates import RateConfig, add_rate_terms
from spnet.network.dynamic import DynamicNetwork
from spnet.network.rule import BlockRule
from spnet.network.sampling import Argmax, GumbelSoft, GumbelStraightThrough
from spnet.settings import setting


@dataclass(frozen=True)
class CoDiNetConfig(RateConfig):
    target: float = setting(0.6, "share of the blocks that the cost loss aims at; target of the rate loss")
    rate: float = setting(0.0, "weight of the target-rate loss; not part of CoDiNet")
    cost: float = setting(0.1, "weight of the loss on the number of executed blocks")
    cost_form: str = setting("batch", "cost loss: sample (each image is held to it) or batch (only a batch's mean is)")
    copies: int = setting(2, "augmented copies of each image in a batch; they multiply a step's work")
    consistency: float = setting(0.2, "weight of the loss that holds the copies' paths together")
    consistency_margin: float = setting(0.25, "distance from the copies' centre that costs nothing")
    diversity: float = setting(0.2, "weight of the loss that keeps different images' paths apart")
    diversity_margin: float = setting(1.5, "distance of two images' centres beyond which they are apart enough")
    hard: bool = setting(False, "straight-through one-hot gates in training instead of soft ones")
    tau: float = setting(1.0, "Gumbel temperature")
    finetune_share: float = setting(0.0, "share of the epochs spent last with frozen routers and arg-max decisions")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.copies < 1 or self.tau <= 0:
            raise UserError("copies is at least 1 and tau is positive.")
        if self.consistency_margin < 0 or self.diversity_margin < 0:
            raise UserError("consistency_margin and diversity_margin are distances and not negative.")


class CoDiNet(Method):
    name = "codinet"
    Config = CoDiNetConfig
    rule = BlockRule(skip="own-projection")

    def build_router(self, backbone: Backbone) -> TwoLinears:
        return TwoLinears(backbone.input_widths, backbone.options, self.config.gated(backbone))

    def phases(self, epochs: int) -> list[Phase]:
        c = self.config
        sampler = GumbelStraightThrough(c.tau) if c.hard else GumbelSoft(c.tau)
        main = Phase("codinet", epochs, self.objective, sampler, copies=c.copies)
        finetune = Phase("finetune", epochs, classification_loss, Argmax(), trainable=backbone_only)
        before = [(c.static_share, warmups.static(epochs))]
        return warmups.by_share(epochs, main, before=before, after=[(c.finetune_share, finetune)])

    def objective(self, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        c = self.config
        losses = classification_loss(net, batch, step)
        paths_BD = path_vectors(losses.trace.gates)
        for name, weight, value in (
            ("consistency", c.consistency, consistency(paths_BD, batch.copies, c.consistency_margin)),
            ("diversity", c.diversity, diversity(paths_BD, batch.copies, c.diversity_margin)),
        ):
            losses.watched[name] = value.detach()
            if weight:
                losses.terms[name] = weight * value
        return add_rate_terms(losses, net, c)
