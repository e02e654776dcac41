"""SP-Net (Wang et al., ECCV 2022): slowly progressing dynamic inference networks, as a wrapper around any dynamic
method.

Three things are added to the wrapped method: a momentum copy of the network (`auxiliary.py`) whose router logits and
class logits guide the network's own; a classifier after every stage; and a penalty on changes in the direction in which
features evolve. Plain `spnet` wraps the `dynamic` baseline. The order in a step is the released one: student forward,
momentum update with the pre-step student, auxiliary forward on the same batch, losses. At test the wrapped network runs
alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spnet.backbones.base import Backbone
from spnet.errors import UserError, choose
from spnet.losses import (
    default_stage_weights,
    feature_evolution,
    logit_alignment,
    path_alignment,
    stage_classification,
    within_stage_readings,
    zero_step_share,
)
from spnet.methods.base import Batch, Losses, Objective, Phase, Step
from spnet.methods.gated import Gated
from spnet.methods.spnet.auxiliary import AuxiliaryModule
from spnet.methods.wrapper import Wrapper
from spnet.network.dynamic import DynamicNetwork
from spnet.network.heads import StageHeads
from spnet.network.trace import Trace
from spnet.settings import setting

PRESETS = {"released": (0.1, 0.1, 1e-4), "paper": (1.0, 0.5, 1e-4)}
"""Weights of path, logits and evolution: the authors' code, and supplement B read as (alpha, beta, gamma)."""


@dataclass(frozen=True)
class SPNetConfig:
    preset: str = setting("released", "weights of the three terms: released (0.1, 0.1, 1e-4) or paper (1.0, 0.5, 1e-4)")
    classification: float = setting(1.0, "weight of the multi-stage classification loss")
    stage_weights: tuple[float, ...] = setting((), "weight per stage; empty: (0.1, 0.2, 1.0) for three stages")
    exits: tuple[str, ...] = setting((), "names of the stages with a classifier (layer2, layer3); empty: all")
    path: float | None = setting(None, "weight of the router-logit alignment; none: the preset's")
    path_form: str = setting("mse", "router-logit alignment: mse or kl")
    logits: float | None = setting(None, "weight of the class-logit alignment; none: the preset's")
    logits_form: str = setting("mse", "class-logit alignment: mse or kl")
    logits_target: str = setting("same-stage", "which auxiliary logits guide a stage: same-stage or last")
    logits_temperature: float = setting(1.0, "temperature of the kl form")
    evolution: float | None = setting(None, "weight of the feature evolution loss; none: the preset's")
    evolution_form: str = setting(
        "within-stage", "feature evolution: within-stage (CIFAR), stage or kl (aligned features)"
    )
    evolution_pairs: str = setting("adjoining", "steps compared by the stage form: adjoining or all")
    auxiliary_momentum: float = setting(0.6, "momentum of the auxiliary copy (0.6 CIFAR, 0.9 ImageNet)")

    def __post_init__(self) -> None:
        choose("preset", self.preset, PRESETS)
        for name, value in (("path_form", self.path_form), ("logits_form", self.logits_form)):
            choose(name, value, ("mse", "kl"))
        choose("logits_target", self.logits_target, ("same-stage", "last"))
        choose("evolution_form", self.evolution_form, ("within-stage", "stage", "kl"))
        choose("evolution_pairs", self.evolution_pairs, ("adjoining", "all"))
        if self.evolution_pairs == "all" and self.evolution_form != "stage":
            raise UserError("evolution_pairs 'all' compares the steps of evolution_form 'stage': set both.")
        if self.logits_form == "mse" and self.logits_temperature != 1:
            raise UserError("logits_temperature has no effect on logits_form 'mse': set logits_form 'kl'.")
        if self.logits_temperature <= 0:
            raise UserError(f"logits_temperature must be positive, not {self.logits_temperature}.")
        if min(self.classification, *self.weights, *self.stage_weights) < 0:
            raise UserError("the weights of losses and stages must not be negative.")
        if not 0 <= self.auxiliary_momentum <= 1:
            raise UserError(f"auxiliary_momentum lies between 0 and 1, not {self.auxiliary_momentum}.")

    @property
    def weights(self) -> tuple[float, float, float]:
        """(path, logits, evolution) after the preset."""
        own = (self.path, self.logits, self.evolution)
        path, logits, evolution = (p if o is None else o for o, p in zip(own, PRESETS[self.preset], strict=True))
        return path, logits, evolution


class SPNet(Wrapper):
    """Args:
    config: weights and forms of SP-Net's own terms.
    inner: the wrapped method; the dynamic baseline when left out.
    """

    name = "spnet"
    Config = SPNetConfig
    Inner = Gated

    def build_heads(self, backbone: Backbone) -> StageHeads:
        c, names = self.config, backbone.stages.names
        for name in c.exits:
            choose(f"stage of {backbone.name} in 'exits'", name, names[:-1])
        headed = [stage for stage, name in enumerate(names[:-1]) if not c.exits or name in c.exits]
        if c.stage_weights and len(c.stage_weights) != len(headed) + 1:
            raise UserError(
                f"'stage_weights' needs one weight per stage: {len(headed) + 1} for {backbone.name}, "
                f"not {len(c.stage_weights)}."
            )
        aligned = c.evolution_form != "within-stage"
        return StageHeads(backbone.stage_widths, backbone.num_classes, aligned, headed)

    def own_modules(self, net: DynamicNetwork) -> dict[str, nn.Module]:
        self.auxiliary = AuxiliaryModule(net, self.config.auxiliary_momentum)
        return {"auxiliary": self.auxiliary}

    def around(self, phase: Phase, first: bool) -> Phase:
        return replace(
            phase,
            objective=self._around(phase.objective),
            trainable=_with_heads(phase),
            on_start=self._then_reset(phase.on_start) if first else phase.on_start,
        )

    def _then_reset(self, begin: Callable[[DynamicNetwork], None] | None) -> Callable[[DynamicNetwork], None]:
        """The auxiliary module starts as a copy of the network as it stands when slow progress begins."""

        def start(net: DynamicNetwork) -> None:
            if begin is not None:
                begin(net)
            self.auxiliary.reset(net)

        return start

    def _around(self, inner: Objective) -> Objective:
        def objective(net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
            losses = inner(net, batch, step)
            return self.add_terms(losses, net, batch, step)

        return objective

    def add_terms(self, losses: Losses, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        """Add SP-Net's terms to the inner method's losses of this step."""
        c, trace = self.config, losses.trace
        path_weight, logits_weight, evolution_weight = c.weights
        weights = c.stage_weights or default_stage_weights(len(trace.stage_logits))
        terms: dict[str, tuple[float, Tensor]] = {}
        if "classification" in losses.terms:
            terms["classification"] = (
                c.classification,
                stage_classification(trace.stage_logits, batch.labels, weights),
            )
        readings = evolution_readings(net, trace, c.evolution_form)
        evolution = feature_evolution(readings, form=c.evolution_form, pairs=c.evolution_pairs)
        terms["evolution"] = (evolution_weight, evolution)
        losses.watched["zero_steps"] = zero_step_share(readings, form=c.evolution_form, pairs=c.evolution_pairs)
        if path_weight or logits_weight:
            guide = self._guide(net, batch, step)
            if trace.router_logits:
                terms["path"] = (
                    path_weight,
                    path_alignment(trace.router_logits, guide.router_logits, form=c.path_form),
                )
            aligned = logit_alignment(
                trace.stage_logits,
                guide.stage_logits,
                weights,
                form=c.logits_form,
                target=c.logits_target,
                temperature=c.logits_temperature,
            )
            terms["logits"] = (logits_weight, aligned)
        for name, (weight, value) in terms.items():
            losses.watched[name] = value.detach()
            if weight:  # a term without weight is watched but leaves the gradient bit-identical
                losses.terms[name] = weight * value
            else:
                losses.terms.pop(name, None)
        return losses

    @torch.no_grad()
    def _guide(self, net: DynamicNetwork, batch: Batch, step: Step) -> Trace:
        """Guided paths and labels: momentum update, then the auxiliary network on the same batch."""
        self.auxiliary.update(net)
        for guide, own in zip(self.auxiliary.net.modules(), net.modules(), strict=True):
            guide.training = own.training  # train mode, but what a phase froze is frozen in the guide too
        return self.auxiliary.net(batch.images, sampler=step.phase.sampler, noise=step.teacher_noise)


def evolution_readings(
    net: DynamicNetwork, trace: Trace, form: str
) -> list[tuple[Tensor, Tensor, Tensor]] | list[Tensor]:
    """What the evolution loss reads: (first, middle, last) pooled features of each stage, or one aligned feature a
    stage."""
    if form == "within-stage":
        return within_stage_readings(trace.block_features, net.backbone.stages.slices)
    return list(trace.aligned_features)


def _with_heads(phase: Phase) -> Callable[[str], bool]:
    """Stage heads train wherever the wrapped phase trains anything of the plain network."""
    return lambda name: name.startswith("stage_heads.") or phase.trainable(name)
