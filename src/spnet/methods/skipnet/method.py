"""SkipNet (Wang et al., ECCV 2018, arXiv 1711.09485): gates in sequence, supervised first, then hybrid reinforcement.

The gate before a block reads the previous block's output; the first block has none and always runs. Supervised phase:
hard decisions forward, the probability's gradient backward, cross-entropy only. Reinforcement: decisions are sampled,
cross-entropy trains the features, REINFORCE trains the gates on reward = skipped blocks - cross-entropy. No baseline,
no entropy bonus, as published.

Deviations from the released code, each a slip there: log-probabilities and rewards have one shape (its ImageNet script
mixes every reward with every action); rewards are values, without a gradient; a transition's projection runs once per
step, not twice; there is no gate after the last block; every epoch sees all images.

Shapes: B samples, L gated blocks.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from spnet.backbones.base import Backbone
from spnet.errors import UserError, choose
from spnet.losses import reinforce, reward_to_go, skip_rewards
from spnet.methods import warmups
from spnet.methods.base import (
    Batch,
    Losses,
    Method,
    Optimizer,
    Phase,
    Step,
    backbone_only,
    classification_loss,
    router_only,
)
from spnet.methods.rates import RateConfig, add_rate_terms
from spnet.methods.skipnet.feed_forward import FORMS, FeedForward
from spnet.methods.skipnet.recurrent import INITS, Recurrent
from spnet.network.dynamic import DynamicNetwork
from spnet.network.rule import BlockRule
from spnet.network.sampling import Categorical, Draw, StraightThrough
from spnet.numerics import widened
from spnet.settings import setting


@dataclass(frozen=True)
class SkipNetConfig(RateConfig):
    rate: float = setting(0.0, "weight of the target-rate loss in the supervised phase; not part of SkipNet")
    gate: str = setting("rnn", "gate: rnn (one LSTM for all blocks), ff1 or ff2 (convolutions of their own)")
    gate_init: str = setting("he", "initial weights of the rnn gate: he (CIFAR code) or xavier (ImageNet code)")
    supervised_soft: bool = setting(False, "ablation: train the supervised phase with soft gates (arg-max at test)")
    reinforce_share: float = setting(
        0.135, "share of the epochs spent last on reinforcement; 0: none, 1: no supervised phase"
    )
    reinforce: float = setting(0.01, "weight of the REINFORCE loss")
    reinforce_reduction: str = setting("sum", "REINFORCE loss over a batch: sum (CIFAR code) or mean (ImageNet code)")
    reinforce_lr: float | None = setting(1e-4, "constant learning rate of reinforcement; none: the run's own optimizer")
    skip_reward: float = setting(0.1, "alpha: reward for skipping every block")
    prediction_reward: float | None = setting(
        1.0, "beta: weight of the cross-entropy in the reward; none: alpha / gates"
    )
    discount: float = setting(1.0, "discount of later rewards")
    sharpen: float = setting(
        1.0, "divide the gates' last layer by this when reinforcement starts (0.05 in ImageNet code)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("gate", self.gate, ("rnn", *FORMS))
        choose("gate_init", self.gate_init, INITS)
        choose("reinforce_reduction", self.reinforce_reduction, ("sum", "mean"))
        if self.gate != "rnn" and self.gate_init != "he":
            raise UserError(f"gate_init '{self.gate_init}' is for gate 'rnn'; '{self.gate}' has only 'he'.")
        if self.reinforce_lr is not None and self.reinforce_lr <= 0:
            raise UserError(f"reinforce_lr must be positive, not {self.reinforce_lr}; none takes the run's optimizer.")
        if self.sharpen <= 0 or not 0 <= self.discount <= 1:
            raise UserError("sharpen is positive and discount lies in [0, 1].")


class SkipNet(Method):
    name = "skipnet"
    Config = SkipNetConfig
    rule = BlockRule(skip="plain", shortcut="projection")

    def build_router(self, backbone: Backbone) -> Recurrent | FeedForward:
        gated = [False, *self.config.gated(backbone)[1:]]
        if not any(gated):
            raise UserError("SkipNet needs a gate: leave at least one block after the first with a target below 1.")
        if self.config.gate == "rnn":
            return Recurrent(backbone.input_widths, gated, init=self.config.gate_init)
        return FeedForward(backbone.input_shapes, gated, form=self.config.gate)

    def phases(self, epochs: int) -> list[Phase]:
        c = self.config
        before = [(c.static_share, warmups.static(epochs))]
        optimizer = None
        if c.reinforce_lr is not None:
            optimizer = Optimizer("sgd", c.reinforce_lr, schedule="constant")
        reinforcement = Phase(
            "reinforce", epochs, self.hybrid, Categorical(), optimizer=optimizer, on_start=self.sharpen
        )
        if c.reinforce_share == 1:
            return warmups.by_share(epochs, reinforcement, before=before)
        supervised = replace(
            warmups.supervised(epochs),
            objective=self.supervise,
            trainable=lambda name: (
                backbone_only(name) or router_only(name)
            ),  # a wrapper's stage heads learn nothing here
            sampler=SoftProbability() if c.supervised_soft else StraightThrough(),
            warmup=c.reinforce_share > 0,  # without reinforcement it is the training itself
        )
        return warmups.by_share(epochs, supervised, before=before, after=[(c.reinforce_share, reinforcement)])

    def supervise(self, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        """Cross-entropy, and the rate terms if they are asked for."""
        return add_rate_terms(classification_loss(net, batch, step), net, self.config)

    def hybrid(self, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        """Mean cross-entropy of the sampled paths + w * REINFORCE. The cross-entropy does not reach the gates' logits.

        The rate terms have no place here: sampled gates carry no gradient.
        """
        c = self.config
        trace = net(batch.images, sampler=step.phase.sampler, noise=step.noise)
        cross_entropy_B = F.cross_entropy(trace.logits.float(), batch.labels, reduction="none")
        parts = [
            gate_BK @ net.option_costs(i).to(gate_BK.dtype)
            for i, gate_BK in zip(net.gated_indices, trace.gates, strict=True)
        ]
        rewards_BL = skip_rewards(torch.stack(parts, 1), c.skip_reward)
        beta = c.skip_reward / len(parts) if c.prediction_reward is None else c.prediction_reward
        policy = reinforce(trace.log_prob, reward_to_go(rewards_BL, cross_entropy_B, beta, c.discount))
        if c.reinforce_reduction == "sum":
            policy = policy * len(batch.labels)
        terms = {"classification": cross_entropy_B.mean(), "reinforce": c.reinforce * policy}
        return Losses(terms, trace, {"skip_reward": rewards_BL.sum(1).mean()})

    @torch.no_grad()
    def sharpen(self, net: DynamicNetwork) -> None:
        """Make the gates surer without changing a decision, so that sampling disturbs the features less."""
        assert isinstance(net.router, (Recurrent, FeedForward))
        for layer in net.router.last_layers:
            for parameter in layer.parameters():
                parameter /= self.config.sharpen


@dataclass(frozen=True)
class SoftProbability:
    """The probabilities themselves as the gate: every block runs a little. Ablation of the supervised phase."""

    needs_logits: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        gate_BK = widened(logits_BK).softmax(1)
        return Draw(gate_BK, gate_BK.new_zeros(len(gate_BK)))
