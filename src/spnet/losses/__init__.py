"""The losses: pure functions, tensors in, scalar out, no state. A table of contents."""

from spnet.losses.feature_evolution import feature_evolution, within_stage_readings, zero_step_share
from spnet.losses.logit_alignment import logit_alignment
from spnet.losses.path_alignment import path_alignment
from spnet.losses.path_relation import consistency, diversity, path_vectors
from spnet.losses.policy_gradient import (
    bernoulli_log_prob,
    blockdrop_reward,
    bounded_probability,
    exploration_bonus,
    reinforce,
    reward_to_go,
    self_critical,
    skip_rewards,
)
from spnet.losses.sample_relation import (
    contrastive_relation,
    entropy_similarity,
    matching_relation,
    pairwise_similarity,
    path_gram,
)
from spnet.losses.self_distillation import self_distillation
from spnet.losses.stage_classification import default_stage_weights, stage_classification
from spnet.losses.target_rate import (
    cost_deviation,
    cost_deviation_of_mean,
    executed_blocks,
    execution_rates,
    target_rate,
)

__all__ = [
    "bernoulli_log_prob",
    "blockdrop_reward",
    "bounded_probability",
    "consistency",
    "contrastive_relation",
    "cost_deviation",
    "cost_deviation_of_mean",
    "default_stage_weights",
    "diversity",
    "entropy_similarity",
    "executed_blocks",
    "execution_rates",
    "exploration_bonus",
    "feature_evolution",
    "logit_alignment",
    "matching_relation",
    "pairwise_similarity",
    "path_alignment",
    "path_gram",
    "path_vectors",
    "reinforce",
    "reward_to_go",
    "self_critical",
    "self_distillation",
    "skip_rewards",
    "stage_classification",
    "target_rate",
    "within_stage_readings",
    "zero_step_share",
]
