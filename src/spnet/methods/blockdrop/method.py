"""BlockDrop (Wu et al., CVPR 2018, arXiv 1711.08393): a policy network sees the image and drops blocks.

All decisions are taken at once, before the first block. A trained network is given; two phases follow: a curriculum, in
which the network is frozen and the policy takes over from the last block to the first, and a joint finetuning. Both
maximise a reward: the fewer blocks the better where the prediction is right, a penalty where it is wrong; the baseline
is the reward of the greedy path.

Deviations from the released code: the exploration bonus is the full entropy of the open blocks (the released form by
name); the greedy pass runs in eval mode, so that batch norms see one path per step; a sample that draws its greedy path
has advantage 0 whatever the mode; images are normalised as for every method; a short training opens several blocks an
epoch; the default includes the static training that the release takes from a checkpoint.

Shapes: B samples, K gated blocks, N blocks in all.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from spnet.backbones import create_backbone
from spnet.backbones.base import Backbone
from spnet.errors import UserError, choose
from spnet.losses import blockdrop_reward, bounded_probability, exploration_bonus, self_critical
from spnet.methods import warmups
from spnet.methods.base import Batch, Losses, Method, MethodConfig, Optimizer, Phase, Step, router_only
from spnet.methods.blockdrop.policy_network import PolicyNetwork
from spnet.network.dynamic import DynamicNetwork
from spnet.network.modes import evaluating
from spnet.network.rule import BlockRule
from spnet.network.sampling import AllRun, Bounded, Draw, Forced, Sampler, largest
from spnet.network.trace import Trace
from spnet.settings import setting


@dataclass(frozen=True)
class BlockDropConfig(MethodConfig):
    static_share: float = setting(0.3, "share of the epochs spent first on the plain network; 0 with --init")
    uniform_share: float = setting(
        0.0, "share of the epochs spent next on uniformly drawn paths; not in the released code"
    )
    finetune_share: float = setting(0.5, "share of the epochs spent last on policy and network together")
    policy_backbone: str = setting("resnet8", "backbone of the policy network")
    policy_image_pool: int = setting(1, "average-pool the image by this before the policy network (2 on ImageNet)")
    policy_lr: float = setting(1e-3, "Adam's learning rate in the curriculum")
    finetune_lr: float = setting(1e-4, "Adam's learning rate in the joint finetuning; a tenth after 80 % of it")
    policy_bound: float = setting(0.8, "a: keep probabilities are drawn within [1 - a, a]")
    curriculum_penalty: float = setting(-1.0, "reward of a wrong prediction in the curriculum")
    finetune_penalty: float = setting(
        -5.0, "reward of a wrong prediction in the joint finetuning (-10 in the CIFAR example)"
    )
    finetune_reduction: str = setting("sum", "policy loss of the joint finetuning over a batch: sum (released) or mean")
    exploration: float = setting(0.1, "weight of the exploration bonus in the curriculum")
    exploration_form: str = setting(
        "entropy", "exploration bonus: entropy (of open blocks) or released (-p ln p of all)"
    )

    def __post_init__(self) -> None:
        choose("finetune_reduction", self.finetune_reduction, ("sum", "mean"))
        choose("exploration_form", self.exploration_form, ("entropy", "released"))
        if self.curriculum_penalty > 0 or self.finetune_penalty > 0:
            raise UserError("curriculum_penalty and finetune_penalty are rewards of a wrong prediction: not positive.")
        if not 0.5 <= self.policy_bound <= 1:
            raise UserError(f"policy_bound lies in [0.5, 1], not {self.policy_bound}.")
        if self.policy_lr <= 0 or self.finetune_lr <= 0 or self.policy_image_pool < 1:
            raise UserError("policy_lr and finetune_lr are positive, policy_image_pool is at least 1.")


class BlockDrop(Method):
    """The target-rate loss is not offered: drawn decisions carry no gradient to the policy. Its reward sets the cost
    (`finetune_penalty`), calibration meets a budget."""

    name = "blockdrop"
    Config = BlockDropConfig
    rule = BlockRule(skip="plain", shortcut="avgpool")

    def build_router(self, backbone: Backbone) -> PolicyNetwork:
        c = self.config
        gated = c.skippable(backbone)
        if not any(gated):
            raise UserError(f"BlockDrop needs a block to drop: nothing of {backbone.name} may be skipped.")
        channels, *size = backbone.input_shape
        pooled = (channels, *(math.ceil(length / c.policy_image_pool) for length in size))
        trunk = create_backbone(
            c.policy_backbone,
            num_classes=sum(gated),
            input_shape=pooled,
            skip_rule=self.rule,
        )
        return PolicyNetwork(trunk, gated, image_pool=c.policy_image_pool)

    def phases(self, epochs: int) -> list[Phase]:
        c = self.config
        before = [(c.static_share, warmups.static(epochs)), (c.uniform_share, warmups.uniform(epochs))]
        curriculum = Phase(
            "curriculum",
            epochs,
            self.learn_policy,
            Bounded(c.policy_bound),
            trainable=router_only,
            optimizer=Optimizer("adam", c.policy_lr, weight_decay=0.0, schedule="constant"),
            warmup=c.finetune_share > 0,  # without finetuning it is the training itself
        )
        finetune = Phase(
            "finetune",
            epochs,
            self.learn_together,
            Bounded(c.policy_bound),
            optimizer=Optimizer("adam", c.finetune_lr, weight_decay=0.0, schedule="multistep", milestones=(0.8,)),
        )
        return warmups.by_share(epochs, curriculum, before=before, after=[(c.finetune_share, finetune)])

    def learn_policy(self, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        """Curriculum, L1: mean policy loss - exploration bonus, over the blocks that are open in this epoch."""
        c = self.config
        blocks = len(net.gated_indices)
        closed = blocks - open_blocks(step.epoch, step.phase.epochs, blocks)
        first = net.gated_indices[closed]
        trace = net(batch.images, sampler=LastOpen(step.phase.sampler, first), noise=step.noise)
        advantage_B, watched = self_critical_advantage(net, batch, trace, c.curriculum_penalty, closed)
        open_K = torch.arange(blocks, device=advantage_B.device) >= closed
        keep_BK = torch.stack(trace.router_logits, 1).float().softmax(2)[:, :, 1]
        bonus = exploration_bonus(
            bounded_probability(keep_BK, c.policy_bound),
            c.exploration_form,
            None if c.exploration_form == "released" else open_K,
        )
        terms = {"policy": self_critical(trace.log_prob, advantage_B, open_K)}
        if c.exploration:
            terms["exploration"] = -c.exploration * bonus
        return Losses(terms, trace, {**watched, "exploration": bonus.detach()})

    def learn_together(self, net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
        """Joint finetuning, L2: cross-entropy of the drawn paths (to the network) + policy loss (to the policy)."""
        trace = net(batch.images, sampler=step.phase.sampler, noise=step.noise)
        advantage_B, watched = self_critical_advantage(net, batch, trace, self.config.finetune_penalty)
        policy = self_critical(trace.log_prob, advantage_B, reduction=self.config.finetune_reduction)
        classification = F.cross_entropy(trace.logits.float(), batch.labels)
        return Losses({"classification": classification, "policy": policy}, trace, watched)


def open_blocks(epoch: int, epochs: int, blocks: int) -> int:
    """How many blocks, counted from the last, the policy decides in this epoch (from 0) of the curriculum.

    Published: one more an epoch, epoch + 1. A curriculum shorter than the network opens them evenly instead, so that
    all are open in its last epoch.
    """
    return min(epoch + 1, blocks) if epochs >= blocks else math.ceil((epoch + 1) * blocks / epochs)


@dataclass(frozen=True)
class LastOpen:
    """`inner` decides the blocks from `first` on; those before it run for certain, without noise or gradient."""

    inner: Sampler
    first: int
    needs_logits: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        return self.inner(i, logits_BK, noise) if i >= self.first else AllRun()(i, logits_BK, noise)


@dataclass(frozen=True, eq=False)
class KnownPath(Forced):
    """Given decisions, as `Forced`, but the routers do not run again."""

    needs_logits: ClassVar[bool] = False


@torch.no_grad()
def self_critical_advantage(
    net: DynamicNetwork, batch: Batch, trace: Trace, penalty: float, closed: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """(B,) R(u) - R(u*) of the drawn paths u in `trace` against the greedy paths u* of the same probabilities.

    The greedy paths run in eval mode. Where u = u* the advantage is 0 by definition, also if the two modes disagree.
    The first `closed` gated blocks run in both. Also returned: what is worth watching.
    """
    gated = net.gated_indices
    greedy = [largest(logits_BK) for logits_BK in trace.router_logits]
    greedy[:closed] = [torch.ones_like(column_B) for column_B in greedy[:closed]]
    greedy_BK = torch.stack(greedy, 1)
    path = list(trace.decisions.unbind(1))
    for i, column_B in zip(gated, greedy, strict=True):
        path[i] = column_B
    with evaluating(net.backbone):
        baseline = net(batch.images, sampler=KnownPath(batch.mine(torch.stack(path, 1))), heads=False)
    drawn_BK, ran_BK = (torch.stack([run.decisions[:, i] for i in gated], 1) for run in (trace, baseline))
    reward_B, greedy_reward_B = (
        blockdrop_reward(run.logits.argmax(1) == batch.labels, taken_BK.sum(1), len(gated), penalty)
        for run, taken_BK in ((trace, drawn_BK), (baseline, ran_BK))
    )
    advantage_B = torch.where((drawn_BK == greedy_BK).all(1), 0, reward_B - greedy_reward_B)
    watched = {
        "reward": reward_B.mean(),
        "greedy_reward": greedy_reward_B.mean(),
        "greedy_kept": greedy_BK.sum(1).float().mean(),
    }
    return advantage_B, watched
