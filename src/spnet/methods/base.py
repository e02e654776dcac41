"""What a method is: how its network is built, the phases of its training, the losses of a step.

One method = one folder: a frozen dataclass of settings, a `Method` that is a thin object around pure loss functions,
and the router and losses that no other method uses.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spnet.backbones.base import Backbone
from spnet.network.dynamic import DynamicNetwork, Noise
from spnet.network.heads import StageHeads
from spnet.network.rule import BlockRule
from spnet.network.sampling import Sampler
from spnet.network.trace import Trace
from spnet.numerics import identity
from spnet.routers.base import Router
from spnet.settings import setting


@dataclass(frozen=True)
class Optimizer:
    """An optimiser and its schedule. Milestones and warm-up are shares of the phase, so that recipes scale.

    Attributes:
        name: `sgd` or `adam`.
        lr: peak learning rate.
        schedule: `multistep` (times 0.1 at each milestone), `cosine` (to 0), `onecycle` (linear up, linear down to 0),
            `constant`.
        milestones: for multistep, shares of the phase's steps.
        warmup: share of the phase's steps over which the rate rises linearly.
        clip_value: elementwise gradient clamp; None leaves gradients alone.
    """

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (0.43, 0.716)
    warmup: float = 0.0
    clip_value: float | None = None


@dataclass(frozen=True)
class Batch:
    """Images (B*copies, C, H, W), normalised, the copies of one image adjacent; labels (B*copies,).

    Where several processes share the batch, the images are those of this one, and everything else is of the whole
    batch: the labels, and what the network says of the images. `mine` takes this process's rows out of such a tensor,
    to hand them to the network again.
    """

    images: Tensor
    labels: Tensor
    copies: int = 1
    mine: Callable[[Tensor], Tensor] = identity


@dataclass(frozen=True)
class Step:
    """What a training step knows beside its batch.

    Attributes:
        phase: the phase it belongs to.
        epoch: epochs finished in this phase.
        noise: the student's random streams; `teacher_noise`: those of an auxiliary network.
    """

    phase: "Phase"
    epoch: int = 0
    noise: Noise = field(default_factory=Noise)
    teacher_noise: Noise = field(default_factory=Noise)


@dataclass
class Losses:
    """What a step minimises. `terms` are already weighted; their sum is the loss.

    `watched` are unweighted values for the log (each loss before its weight, shares of zero steps ...), never
    minimised.
    """

    terms: dict[str, Tensor]
    trace: Trace
    watched: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        return torch.stack([term.float() for term in self.terms.values()]).sum()


Objective = Callable[[DynamicNetwork, Batch, Step], Losses]


def everything(name: str) -> bool:
    return True


def backbone_only(name: str) -> bool:
    return name.startswith("backbone.")


def router_only(name: str) -> bool:
    return name.startswith("router.")


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one objective, one sampler and one optimiser.

    Attributes:
        epochs: at least one.
        objective: (net, batch, step) -> losses; may run the network several times.
        sampler: how router logits become decisions while training.
        trainable: parameter name -> bool. What is not trainable is really frozen: a module all of whose parameters are
            frozen runs in eval mode, so its batch-norm statistics stand still too.
        optimizer: None takes the run's own.
        copies: augmented copies per image.
        forwards: how often a step passes a copy through the student with a gradient. A momentum copy's passes are none
            of the student's; those without a gradient are not counted.
        warmup: True for a phase that only prepares; a wrapper such as SP-Net leaves it alone.
        on_start: called once with the network when the phase begins (not on resume).
        capturable: False for an objective that changes anything but tensors from step to step, such as a counter on the
            host: its steps cannot be replayed (setting `capture`).
    """

    name: str
    epochs: int
    objective: Objective
    sampler: Sampler
    trainable: Callable[[str], bool] = everything
    optimizer: Optimizer | None = None
    copies: int = 1
    forwards: int = 1
    warmup: bool = False
    on_start: Callable[[DynamicNetwork], None] | None = None
    capturable: bool = True

    @property
    def passes(self) -> int:
        """Student passes that a step makes for each image."""
        return self.copies * self.forwards


@dataclass(frozen=True)
class MethodConfig:
    """Settings shared by every method. Each field is a command-line flag and a keyword of `create_model`."""

    skip_rule: str = setting("", "what a skipped block is: relu, plain or own-projection; empty: the method's own")
    shortcut: str = setting("", "shortcut at a transition: subsample, avgpool or projection; empty: the method's own")
    static_share: float = setting(0.0, "share of the epochs spent first on the plain network, every block run")
    blocks: tuple[str, ...] = setting((), "names of the blocks that may be skipped (layer3, blocks.*.mlp); empty: all")
    ignore: tuple[str, ...] = setting((), "names of blocks that always run")

    def skippable(self, backbone: Backbone) -> list[bool]:
        """Which blocks may be skipped: those with more than one option, as far as `blocks` and `ignore` leave them."""
        chosen = backbone.matching(self.blocks, "blocks") if self.blocks else set(range(len(backbone.blocks)))
        chosen -= backbone.matching(self.ignore, "ignore")
        return [i in chosen and options > 1 for i, options in enumerate(backbone.options)]


class Method(ABC):
    """Abstract: methods override what differs. Modules a method owns (teacher, queues) live in `state`: saved for
    resume, never exported."""

    name: ClassVar[str]
    Config: ClassVar[type] = MethodConfig
    rule: ClassVar[BlockRule] = BlockRule()
    """The method's own block rule."""
    routed: ClassVar[bool] = True
    """Whether its network decides anything; False where every block runs for every image."""
    ignored: ClassVar[tuple[str, ...]] = ()
    """Settings it has from `MethodConfig` that change nothing for it: who sets one is told."""

    def __init__(self, config: Any = None) -> None:
        self.config: Any = config if config is not None else self.Config()
        self.state: nn.Module = nn.Module()

    def block_rule(self) -> BlockRule:
        """The method's own rule with the settings' overrides."""
        return BlockRule(
            skip=self.config.skip_rule or self.rule.skip,
            shortcut=self.config.shortcut or self.rule.shortcut,
            options=self.rule.options,
        )

    def build_router(self, backbone: Backbone) -> Router | None:
        """The router for this backbone; None for a static network."""
        return None

    def build_heads(self, backbone: Backbone) -> StageHeads | None:
        """Classifiers after the earlier stages, if the method has them."""
        return None

    def attach(self, net: DynamicNetwork) -> None:
        """Create `state` for this network; called once, before training or before a resume fills it."""

    @abstractmethod
    def phases(self, epochs: int) -> list[Phase]:
        """The phases of a training of `epochs` epochs in total; every phase gets at least one."""

    def passes(self, epochs: int) -> int:
        """Student passes of each image in a training of `epochs` epochs in total, its warm-ups included."""
        return sum(phase.epochs * phase.passes for phase in self.phases(epochs))


def classification_loss(net: DynamicNetwork, batch: Batch, step: Step) -> Losses:
    """Cross-entropy of the last stage: the objective of the static network and of every warm-up."""
    trace = net(batch.images, sampler=step.phase.sampler, noise=step.noise)
    return Losses({"classification": F.cross_entropy(trace.logits.float(), batch.labels)}, trace)
