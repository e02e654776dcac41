"""Sandwich training: every step also runs the full path, which teaches the routed one, as a wrapper around any method.

The full path is trained on the labels, the path that the routers draw on the labels and on what the full path says, and
by a setting the cheapest path or a random one on what the full path says alone. So one network stays good over its
whole range of costs. A step passes each image two or three times through the network; compare at equal passes.

Sources: slimmable networks (the sandwich rule and in-place distillation; Yu and Huang, ICCV 2019), adaptive depth
networks (NeurIPS 2024). Deviations: the middle path is the method's own, drawn by its routers; the full path's and the
other paths' batch norms share one set of statistics, which `--reestimate-bn` renews under test-time paths.
"""

from dataclasses import dataclass, replace

import torch.nn.functional as F

from spnet.backbones.base import Backbone
from spnet.errors import UserError, choose
from spnet.losses import self_distillation
from spnet.methods.base import Batch, Losses, Objective, Phase, Step
from spnet.methods.gated import Gated
from spnet.methods.wrapper import Wrapper
from spnet.network.dynamic import DynamicNetwork
from spnet.network.sampling import AllRun, AllSkip, Sampler, Uniform
from spnet.routers.base import Router
from spnet.settings import setting

THIRD: dict[str, Sampler | None] = {"none": None, "cheapest": AllSkip(), "random": Uniform()}
"""Samplers of the third path: every gated block skipped, or each option equally likely per sample and block."""


@dataclass(frozen=True)
class SandwichConfig:
    weight_full: float = setting(1.0, "weight of the full path's cross-entropy")
    distill_share: float = setting(
        0.5, "share of the routed path's loss that is its divergence from the full path; the labels have the rest"
    )
    third_path: str = setting("none", "another path a step, taught by the full one: none, cheapest or random")
    weight_third: float = setting(0.5, "weight of the third path's divergence from the full path, if there is one")

    def __post_init__(self) -> None:
        choose("third_path", self.third_path, THIRD)
        if not 0 <= self.distill_share <= 1:
            raise UserError(f"distill_share lies between 0 and 1, not {self.distill_share}.")
        if self.weight_full < 0 or self.weight_third <= 0:
            raise UserError("weight_full is not negative and weight_third is positive.")
        if not self.weight_full and not self.distill_share and self.third_path == "none":
            raise UserError("sandwich without weight_full, distill_share and third_path trains nothing more: drop it.")


class Sandwich(Wrapper):
    """It shares the inner method's classification loss with the full path, so no other wrapper goes around it."""

    name = "sandwich"
    Config = SandwichConfig
    Inner = Gated
    outermost = True

    def build_router(self, backbone: Backbone) -> Router:
        router = super().build_router(backbone)
        if router is None or not any(router.gated):
            raise UserError("sandwich needs paths of different cost: no block of this network may be skipped.")
        return router

    def around(self, phase: Phase, first: bool) -> Phase:
        more = 1 if THIRD[self.config.third_path] is None else 2
        return replace(phase, objective=self._around(phase.objective), forwards=phase.forwards + more)

    def _around(self, inner: Objective) -> Objective:
        def objective(net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
            return self.add_terms(inner(net, batch, step), net, batch, step)

        return objective

    def add_terms(self, losses: Losses, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        """Run the other paths and add their terms to the inner method's losses, whose trace is the routed path."""
        c, third = self.config, THIRD[self.config.third_path]
        full_BC = net(batch.images, sampler=AllRun(), noise=step.noise, heads=False).logits
        values = {
            "full": (c.weight_full, F.cross_entropy(full_BC.float(), batch.labels)),
            "distillation": (c.distill_share, self_distillation(losses.trace.logits, full_BC)),
        }
        if third is not None:
            other = net(batch.images, sampler=third, noise=step.noise, heads=False)
            values["third"] = (c.weight_third, self_distillation(other.logits, full_BC))
        if "classification" in losses.terms:
            losses.terms["classification"] = (1 - c.distill_share) * losses.terms["classification"]
        for name, (weight, value) in values.items():
            losses.watched[name] = value.detach()
            if weight:
                losses.terms[name] = weight * value
        return losses
