"""RDI-Net (Wang et al., ICCV 2021): related routers choose to skip, halve or run a block, after random paths.

Two relations: a router's decision is mixed with those of the two routers before it, and samples that are alike are
asked to take paths that are alike (a training-only loss). The backbone is first trained on paths drawn uniformly, so
that its features serve every path before a router chooses one.

Deviations from the released code: predecessors reach a router in their right order; arg-max without noise and dropout
at test; the similarity of samples is pairwise (the code's, from single entropies, says nothing about pairs); the weight
of the sample relation is ours, as is the optional rate or cost term, off by default.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spnet.backbones.base import Backbone
from spnet.errors import UserError, choose
from spnet.losses import (
    contrastive_relation,
    entropy_similarity,
    matching_relation,
    pairwise_similarity,
    path_gram,
    path_vectors,
)
from spnet.methods import warmups
from spnet.methods.base import (
    Batch,
    Losses,
    Method,
    Phase,
    Step,
    backbone_only,
    classification_loss,
    everything,
    router_only,
)
from spnet.methods.rates import RateConfig, add_rate_terms
from spnet.methods.rdi_net.relational import HANDED_ON, Relational
from spnet.network.dynamic import DynamicNetwork
from spnet.network.rule import BlockRule
from spnet.network.sampling import Argmax, GumbelSoft, GumbelStraightThrough
from spnet.network.trace import Trace
from spnet.settings import setting

SIMILARITIES = {
    "features": lambda trace: pairwise_similarity(trace.block_features[-1]),
    "predictions": lambda trace: pairwise_similarity(trace.logits.float().softmax(1)),
    "entropy": lambda trace: entropy_similarity(trace.logits),
}
"""How alike samples are, for the matching form: trace -> (B, B)."""


@dataclass(frozen=True)
class RDINetConfig(RateConfig):
    target: float = setting(0.6, "target of the rate and cost losses, which are off here unless given a weight")
    rate: float = setting(0.0, "weight of the target-rate loss; not part of RDI-Net")
    options: int = setting(3, "options of a block: 3 (skip, half, full) or 2 (skip, full)")
    handed_on: str = setting("decisions", "what a router hands on: decisions (released code) or features (the paper)")
    router_dropout: float = setting(0.4, "dropout on the option logits")
    hard: bool = setting(False, "straight-through one-hot gates in training instead of soft ones")
    tau: float = setting(1.0, "Gumbel temperature")
    relation: float = setting(0.1, "weight of the sample relation loss; 0 as in the last released command")
    relation_form: str = setting("matching", "sample relation loss: matching or contrastive (two copies of each image)")
    relation_similarity: str = setting("features", "matching form: features, predictions, or entropy (released code)")
    relation_temperature: float = setting(1.0, "temperature of the contrastive form")
    relation_queue: int = setting(
        4096, "past paths the contrastive form contrasts with (65536 in the released code)", at_most=1 << 20
    )
    uniform_share: float = setting(0.3, "share of the epochs spent on uniformly drawn paths, before the routers train")
    finetune_share: float = setting(0.2, "share of the epochs spent last with frozen routers and arg-max decisions")
    freeze_backbone: bool = setting(False, "train only the routers between warm-up and finetuning")

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("handed_on", self.handed_on, HANDED_ON)
        choose("relation_form", self.relation_form, ("matching", "contrastive"))
        choose("relation_similarity", self.relation_similarity, SIMILARITIES)
        if not 0 <= self.router_dropout < 1 or self.tau <= 0 or self.relation_temperature <= 0:
            raise UserError("router_dropout lies in [0, 1), tau and relation_temperature are positive.")
        if self.relation_queue < 1:
            raise UserError(f"relation_queue holds at least 1 path, not {self.relation_queue}.")

    @property
    def contrasts(self) -> bool:
        return self.relation > 0 and self.relation_form == "contrastive"


class RDINet(Method):
    name = "rdi-net"
    Config = RDINetConfig
    rule = BlockRule(options=3)

    def block_rule(self) -> BlockRule:
        return replace(super().block_rule(), options=self.config.options)

    def build_router(self, backbone: Backbone) -> Relational:
        c = self.config
        gated = c.gated(backbone)
        return Relational(
            backbone.input_widths, backbone.options, gated, dropout=c.router_dropout, handed_on=c.handed_on
        )

    def attach(self, net: DynamicNetwork) -> None:
        if self.config.contrasts:
            width = sum(net.options[i] for i in net.gated_indices)
            self.queue = PathQueue(self.config.relation_queue, width)
            self.state = nn.ModuleDict({"queue": self.queue})

    def phases(self, epochs: int) -> list[Phase]:
        c = self.config
        sampler = GumbelStraightThrough(c.tau) if c.hard else GumbelSoft(c.tau)
        trainable = router_only if c.freeze_backbone else everything
        routers = Phase(
            "routers",
            epochs,
            self.objective,
            sampler,
            trainable,
            copies=2 if c.contrasts else 1,
            capturable=not c.contrasts,  # the queue counts on the host
        )
        finetune = Phase("finetune", epochs, classification_loss, Argmax(), backbone_only)
        before = [(c.static_share, warmups.static(epochs)), (c.uniform_share, warmups.uniform(epochs))]
        return warmups.by_share(epochs, routers, before=before, after=[(c.finetune_share, finetune)])

    def objective(self, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        losses = classification_loss(net, batch, step)
        if self.config.relation and losses.trace.gates:  # with a target of 1 no block has a router
            value = self._contrast(losses.trace) if self.config.contrasts else self._match(losses.trace)
            losses.watched["relation"] = value.detach()
            losses.terms["relation"] = self.config.relation * value
        return add_rate_terms(losses, net, self.config)

    def _match(self, trace: Trace) -> Tensor:
        similarity_BB = SIMILARITIES[self.config.relation_similarity](trace)
        return matching_relation(similarity_BB, path_gram(path_vectors(trace.gates)))

    def _contrast(self, trace: Trace) -> Tensor:
        """Two copies of an image against past paths; the current ones enter the queue only afterwards."""
        first_ND, second_ND = path_vectors(trace.gates).unflatten(0, (-1, 2)).unbind(1)
        value = contrastive_relation(first_ND, second_ND, self.queue.past(), self.config.relation_temperature)
        self.queue.push(second_ND)
        return value


class PathQueue(nn.Module):
    """The last `size` paths, oldest out first, for any batch size. No gradient; saved for an exact resume.

    Empty at the start: `past` returns only paths that were really taken (the released queue starts as noise).
    """

    paths_MD: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("paths_MD", torch.zeros(size, width))
        self.pushed = 0
        """Paths seen so far; kept on the host, so that reading the queue needs no sync."""

    def past(self) -> Tensor:
        """(M, D), M at most `size`; their order is not their age."""
        return self.paths_MD[: self.pushed]

    @torch.no_grad()
    def push(self, paths_BD: Tensor) -> None:
        size = len(self.paths_MD)
        newest = paths_BD[-size:]
        first = self.pushed + len(paths_BD) - len(newest)
        place_B = torch.arange(first, first + len(newest), device=newest.device) % size
        self.paths_MD.index_copy_(0, place_B, newest.to(self.paths_MD.dtype))
        self.pushed += len(paths_BD)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.pushed)

    def set_extra_state(self, state: Tensor) -> None:
        self.pushed = int(state)
