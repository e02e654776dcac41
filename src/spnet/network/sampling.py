"""Samplers: option logits of one block -> one drawn option per sample.

Everything is computed in float32 at least, under autocast too, and gates come out that way: a block that mixes in half
precision casts them. Option 0 is *skip*, K - 1 is *full*; equal logits take the lowest option, so that of two options
a block runs only if z_run > z_skip. Noise comes from the given generator (None: torch's own) and is always finite.

Shapes: B samples, K options of the block, N decisions of a path.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from spnet.losses.policy_gradient import bernoulli_log_prob, bounded_probability
from spnet.numerics import widened
from spnet.shard import drawn


class Draw(NamedTuple):
    """One block's decisions."""

    gate_BK: Tensor
    """One-hot, or from soft samplers a mixture whose largest entry is the drawn option; carries the gradient."""
    log_prob_B: Tensor
    """Log-probability of the drawn option under the sampler's own distribution; 0 where nothing is left to chance."""


class Sampler(Protocol):
    """How logits become decisions. Samplers hold settings only, never state."""

    needs_logits: ClassVar[bool]
    """False: routers need not run; the logits passed are placeholders of the right shape."""
    stochastic: ClassVar[bool]

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        """Draw an option of block i for each sample."""
        ...


@dataclass(frozen=True)
class Argmax:
    """The test rule: the largest logit, no noise, no gradient."""

    needs_logits: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        return _certain(one_hot(largest(logits_BK), widened(logits_BK)))


@dataclass(frozen=True)
class GumbelStraightThrough:
    """Gumbel-softmax, hard forward (exactly 0 or 1), gradient of the soft sample. ConvNet-AIG and SP-Net, tau = 1.

    The hard draw follows softmax(logits) whatever tau is.
    """

    tau: float = 1.0
    needs_logits: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_tau(self.tau)

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        logits_BK = widened(logits_BK)
        soft_BK = gumbel_softmax_with(logits_BK, gumbel_like(logits_BK, noise), self.tau)
        option_B = largest(soft_BK)
        return Draw(straight_through(one_hot(option_B, soft_BK), soft_BK), _log_prob(logits_BK, option_B))


@dataclass(frozen=True)
class GumbelSoft:
    """Gumbel-softmax as it is: every option runs a little. CoDiNet and RDI-Net, tau = 1."""

    tau: float = 1.0
    needs_logits: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_tau(self.tau)

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        logits_BK = widened(logits_BK)
        soft_BK = gumbel_softmax_with(logits_BK, gumbel_like(logits_BK, noise), self.tau)
        return Draw(soft_BK, _log_prob(logits_BK, largest(soft_BK)))


@dataclass(frozen=True)
class StraightThrough:
    """The most probable option forward, the gradient as if the gate were its probability.

    SkipNet's supervised pre-training: for two options 1[p_run > 0.5] with slope 1.
    """

    needs_logits: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        logits_BK = widened(logits_BK)
        return _certain(straight_through(one_hot(largest(logits_BK), logits_BK), F.softmax(logits_BK, 1)))


@dataclass(frozen=True)
class Categorical:
    """A draw from softmax(logits). SkipNet's reinforcement phase.

    No gradient through the gate, only through the log-probability.
    """

    needs_logits: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        logits_BK = widened(logits_BK)
        option_B = largest(logits_BK + gumbel_like(logits_BK, noise))  # the Gumbel-max trick: an exact draw
        return Draw(one_hot(option_B, logits_BK), _log_prob(logits_BK, option_B))


@dataclass(frozen=True)
class Bounded:
    """Run with probability p' = a p + (1 - a)(1 - p), p = softmax(logits)_run. BlockDrop.

    Two options; gradient as in `Categorical`.
    """

    a: float = 0.8
    needs_logits: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.5 <= self.a <= 1:
            raise ValueError(f"a bounds probabilities to [1 - a, a] and lies between 0.5 and 1, not {self.a}.")

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        if logits_BK.shape[1] != 2:
            raise ValueError(f"Bounded draws between two options, skip and run; block {i} has {logits_BK.shape[1]}.")
        prob_B = bounded_probability(F.softmax(widened(logits_BK), 1)[:, 1], self.a)
        even_B = drawn(lambda shape: prob_B.new_empty(shape).uniform_(generator=noise), prob_B.shape, noise)
        ran_B = even_B < prob_B
        return Draw(torch.stack([~ran_B, ran_B], 1).to(prob_B.dtype), bernoulli_log_prob(prob_B, ran_B))


@dataclass(frozen=True)
class Uniform:
    """Every option equally likely, drawn per sample and block. RDI-Net's warm-up."""

    needs_logits: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        batch, options = logits_BK.shape
        device = logits_BK.device
        option_B = drawn(lambda shape: torch.randint(options, shape, generator=noise, device=device), (batch,), noise)
        gate_BK = one_hot(option_B, widened(logits_BK))
        return Draw(gate_BK, gate_BK.new_full((batch,), -math.log(options)))


@dataclass(frozen=True)
class AllRun:
    """Every block in full."""

    needs_logits: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        gate_BK = torch.zeros_like(widened(logits_BK))
        gate_BK[:, -1].fill_(1)
        return _certain(gate_BK)


@dataclass(frozen=True)
class AllSkip:
    """No block that may be skipped runs: the cheapest path."""

    needs_logits: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        gate_BK = torch.zeros_like(widened(logits_BK))
        gate_BK[:, 0].fill_(1)
        return _certain(gate_BK)


@dataclass(frozen=True, eq=False)  # tensors have no single truth value to compare by
class Forced:
    """Given decisions, integers 0 ... K_i - 1; routers still score.

    Attributes:
        decisions_BN: column i is block i's; (1, N) sends every sample down one path. -1, a block that was never
            reached, skips.
    """

    decisions_BN: Tensor
    needs_logits: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def __call__(self, i: int, logits_BK: Tensor, noise: torch.Generator | None) -> Draw:
        option_B = self.decisions_BN[:, i].long().clamp(min=0).expand(len(logits_BK))
        return _certain(one_hot(option_B, widened(logits_BK)))


def gumbel_softmax_with(logits_BK: Tensor, noise_BK: Tensor, tau: float = 1.0) -> Tensor:
    """softmax((logits + noise) / tau), the soft sample for given noise."""
    return F.softmax((logits_BK + noise_BK) / tau, 1)


def gumbel_like(x: Tensor, noise: torch.Generator | None) -> Tensor:
    """Standard Gumbel noise of x's shape: -log E, E exponential; finite, as E is kept above 0."""
    exponential = drawn(lambda shape: x.new_empty(shape).exponential_(generator=noise), x.shape, noise)
    return exponential.clamp_(min=torch.finfo(x.dtype).tiny).log_().neg_()


def largest(scores_BK: Tensor) -> Tensor:
    """(B,) the option with the largest score, the lowest among equals."""
    return scores_BK.argmax(1)


def one_hot(option_B: Tensor, like_BK: Tensor) -> Tensor:
    """(B, K) 1 at each sample's option, else 0, in the type of `like_BK`; no gradient."""
    return torch.zeros_like(like_BK, requires_grad=False).scatter_(1, option_B.unsqueeze(1), 1)


def straight_through(hard_BK: Tensor, soft_BK: Tensor) -> Tensor:
    """Hard forward, soft backward. Soft minus itself is exactly 0, so the sum is exactly hard."""
    return hard_BK + (soft_BK - soft_BK.detach())


def _certain(gate_BK: Tensor) -> Draw:
    return Draw(gate_BK, gate_BK.new_zeros(len(gate_BK)))


def _log_prob(logits_BK: Tensor, option_B: Tensor) -> Tensor:
    """(B,) log softmax(logits) of the chosen option."""
    return F.log_softmax(logits_BK, 1).gather(1, option_B.unsqueeze(1)).squeeze(1)


def _check_tau(tau: float) -> None:
    if tau <= 0:
        raise ValueError(f"tau is a temperature and must be positive, not {tau}.")
