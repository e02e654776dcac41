"""Rewards and REINFORCE for sampled paths: SkipNet's hybrid reinforcement learning, BlockDrop's self-critical policy.

Rewards and advantages are values: no gradient passes through them. Log-probabilities come from the sampler
(`Draw.log_prob_B`, `Trace.log_prob`). Every loss is a mean over samples of a sum over blocks.

Shapes: B samples, N gated blocks.
"""

import torch
from torch import Tensor

from spnet.errors import choose
from spnet.numerics import widened


def bernoulli_log_prob(prob: Tensor, ran: Tensor) -> Tensor:
    """log-probability of `ran` (bool, or 0/1), where a block runs with probability `prob`; same shapes.

    What cannot happen (p rounded to 0 or 1) gets the log of the smallest float, without a gradient, instead of -inf.
    """
    prob = widened(prob)
    return torch.where(ran.bool(), prob, 1 - prob).clamp_min(torch.finfo(prob.dtype).tiny).log()


def reinforce(log_prob_BN: Tensor, reward_BN: Tensor) -> Tensor:
    """-mean over samples of sum over blocks of r log pi: its gradient is REINFORCE's.

    Source: SkipNet (paper; released ImageNet code). Shapes must be equal: the released code multiplies (B,) by (B, 1),
    which mixes every reward with every action. Its CIFAR code *sums* over the batch [recall]; its weight w is w B here.
    """
    if log_prob_BN.shape != reward_BN.shape:
        raise ValueError(f"log_prob and reward differ in shape: {tuple(log_prob_BN.shape)}, {tuple(reward_BN.shape)}.")
    return -_mean_of_sums(widened(log_prob_BN) * reward_BN.detach())


def skip_rewards(executed_BN: Tensor, alpha: float, costs_N: Tensor | float = 1.0) -> Tensor:
    """(B, N) alpha/N (1 - g_i) C_i: what each skipped block earns. SkipNet, R_i with its factor.

    Args:
        executed_BN: g, 1 where the block ran, 0 where it was skipped (between: a part of it).
        costs_N: C_i, one or (N,).
    """
    return alpha / max(executed_BN.shape[1], 1) * (1 - widened(executed_BN.detach())) * costs_N


def reward_to_go(skip_rewards_BN: Tensor, cross_entropy_B: Tensor, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """(B, N) reward-to-go of SkipNet: a block answers for what comes after it. No baseline, no gradient.

    gamma = 1: r_i = -[beta CE - sum_{j>=i} R_j]. In general, with i and j from 0 to N - 1,
    r_i = sum_{j>=i} gamma^(j-i) R_j - gamma^(N-i) beta CE (released code: R <- r + gamma R, starting from the
    prediction).

    Args:
        skip_rewards_BN: R, from `skip_rewards`.
        cross_entropy_B: CE per sample, in nats.
        beta: weight of the prediction: 1 on CIFAR, alpha/N on ImageNet.
        gamma: discount.
    """
    rewards_BN = widened(skip_rewards_BN.detach())
    cross_entropy_B = widened(cross_entropy_B.detach())
    if cross_entropy_B.shape != rewards_BN.shape[:1]:
        raise ValueError(f"cross_entropy must be ({len(rewards_BN)},), not {tuple(cross_entropy_B.shape)}.")
    position_N = torch.arange(rewards_BN.shape[1], device=rewards_BN.device, dtype=rewards_BN.dtype)
    ahead_NN = position_N - position_N.unsqueeze(1)  # [i, j] = j - i
    discount_NN = (gamma ** ahead_NN.clamp(min=0)).triu()
    # Multiplied and summed by hand: a product of matrices would drop to half precision under autocast.
    skipped_BN = (rewards_BN.unsqueeze(1) * discount_NN).sum(2)
    return skipped_BN - gamma ** (len(position_N) - position_N) * beta * cross_entropy_B.unsqueeze(1)


def blockdrop_reward(correct_B: Tensor, kept_B: Tensor, blocks: int, penalty: float) -> Tensor:
    """(B,) 1 - (kept/K)^2 where the prediction is right, else `penalty`. BlockDrop's R(u).

    Args:
        correct_B: bool, or 0/1.
        kept_B: blocks the path keeps.
        blocks: K, all blocks the policy decides on.
        penalty: gamma, the reward of a wrong prediction, negative: -1 in the curriculum, -5 or -10 after it.
    """
    if penalty > 0:
        raise ValueError(f"penalty is the (negative) reward of a wrong prediction: {-penalty} instead of {penalty}?")
    return torch.where(correct_B.bool(), 1 - (widened(kept_B.detach()) / blocks).square(), penalty)


def self_critical(
    log_prob_BN: Tensor, advantage_B: Tensor, mask_BN: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Mean (or sum) over samples of -A sum_k m_k log pi_k, A = R(u) - R(u*) with the greedy path u*. BlockDrop's L_pg.

    Args:
        advantage_B: one per sample; no gradient.
        mask_BN: (B, N) or (N,) bool, open blocks of the curriculum; the others get exactly no gradient.
        reduction: `mean` (phase 1), or `sum`, the released form of phase 2.
    """
    choose("reduction of self_critical", reduction, ("mean", "sum"))
    if advantage_B.shape != log_prob_BN.shape[:1]:
        raise ValueError(f"advantage must be ({len(log_prob_BN)},), not {tuple(advantage_B.shape)}.")
    weighted_BN = _open(-widened(log_prob_BN) * advantage_B.detach().unsqueeze(1), mask_BN)
    return _mean_of_sums(weighted_BN) if reduction == "mean" else weighted_BN.sum()


def exploration_bonus(prob_BN: Tensor, form: str = "entropy", mask_BN: Tensor | None = None) -> Tensor:
    """Mean over samples of the summed uncertainty of the decisions, in nats; *subtract* it from a loss.

    - `entropy`: -p ln p - (1-p) ln(1-p);
    - `released`: -p ln p alone, BlockDrop's code: it peaks at p = 0.368 and so quietly favours dropping. As released,
      without a mask.

    Certain decisions (p = 0 or 1) are worth 0 and get no gradient.

    Args:
        prob_BN: (bounded) probability that a block runs.
        mask_BN: (B, N) or (N,) bool, open blocks of the curriculum.
    """
    choose("form of exploration_bonus", form, ("entropy", "released"))
    prob_BN = widened(prob_BN)
    bonus_BN = _surprise(prob_BN) if form == "released" else _surprise(prob_BN) + _surprise(1 - prob_BN)
    return _mean_of_sums(_open(bonus_BN, mask_BN))


def bounded_probability(prob: Tensor, a: float = 0.8) -> Tensor:
    """p' = a p + (1 - a)(1 - p), in [1 - a, a]: exploration never ends. BlockDrop; p' > 0.5 exactly where p > 0.5."""
    prob = widened(prob)
    return a * prob + (1 - a) * (1 - prob)


def _mean_of_sums(x_BN: Tensor) -> Tensor:
    """Mean over samples of the sum over blocks."""
    return x_BN.sum() / max(len(x_BN), 1)


def _open(x_BN: Tensor, mask: Tensor | None) -> Tensor:
    return x_BN if mask is None else torch.where(mask.bool(), x_BN, 0)


def _surprise(prob: Tensor) -> Tensor:
    """-p ln p, 0 at p = 0 with a finite slope."""
    return -prob * torch.where(prob > 0, prob, 1).log()
