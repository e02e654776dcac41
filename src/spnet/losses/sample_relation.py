"""RDI-Net's sample relation module, training only: related samples take related paths.

Two losses, (A) and (B), and the matrices that (B) compares. Paths are (B, D) vectors as from `path_vectors`.

Shapes: B samples, D = sum of all blocks' options, M negatives, C classes or channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spnet.numerics import mean, unit, widened


def contrastive_relation(q_BD: Tensor, k_BD: Tensor, negatives_MD: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over samples of -log( e^{q.k/T} / (e^{q.k/T} + sum_j e^{q.n_j/T}) ), form (A) [released code]; in nats.

    Deviation: a path is normalised as a whole (the released code: across blocks, per option). No negatives: 0.

    Args:
        q_BD, k_BD: paths of two copies of the same images; both get a gradient. Scaling a path changes nothing.
        negatives_MD: past paths, without the current positives; no gradient.
    """
    with torch.autocast(q_BD.device.type, enabled=False):  # a product of matrices would drop to half precision
        q_BD, k_BD, negatives_MD = (unit(widened(x)) for x in (q_BD, k_BD, negatives_MD.detach()))
        positive_B1 = (q_BD * k_BD).sum(1, keepdim=True)
        scores = torch.cat([positive_B1, q_BD @ negatives_MD.T], 1) / temperature
    return mean(scores.logsumexp(1) - scores[:, 0])


def matching_relation(similarity_BB: Tensor, path_gram_BB: Tensor) -> Tensor:
    """Mean over entries of |S - P|, the columns of both scaled to length 1: form (B).

    Sample similarity S says what the paths should be like, so it gets no gradient (our choice; the released class is
    unused). A zero column stays zero.

    Args:
        similarity_BB: S, from `pairwise_similarity` or `entropy_similarity`.
        path_gram_BB: P, from `path_gram`.
    """
    return mean((unit(widened(similarity_BB).detach(), 0) - unit(widened(path_gram_BB), 0)).abs())


def path_gram(paths_BD: Tensor) -> Tensor:
    """(B, B) inner products of the paths: for one-hot gates, in how many blocks two samples choose alike."""
    with torch.autocast(paths_BD.device.type, enabled=False):
        paths_BD = widened(paths_BD)
        return paths_BD @ paths_BD.T


def pairwise_similarity(features_BC: Tensor) -> Tensor:
    """(B, B) cosine of features, or of predicted distributions when given softmax probabilities. Our S for form (B)."""
    return path_gram(unit(widened(features_BC)))


def entropy_similarity(logits_BC: Tensor) -> Tensor:
    """(B, B) outer product h h^T of the predictions' entropies in bits: the S of the released code, kept by name only.

    Its normalised columns are all the same, so it carries no information about pairs.
    """
    log_p_BC = F.log_softmax(widened(logits_BC), 1)
    entropy_B = -(log_p_BC.exp() * log_p_BC).sum(1) / math.log(2)
    return entropy_B.unsqueeze(1) * entropy_B
