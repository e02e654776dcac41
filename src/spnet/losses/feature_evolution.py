"""Feature evolution: the direction in which features change across the network is kept steady.

A *reading* is a pooled feature, a *step* the difference of two readings. In a dynamic network a step is exactly zero
whenever the blocks between its readings are skipped for an image: it has no direction, and the naive cosine answers
with a gradient of order 1e8. Such steps are left out: no gradient at all, not counted in the mean.

Shapes: B samples, C_s channels of stage s, D the last stage's width, S stages.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise

import torch
from torch import Tensor

from spnet.errors import choose
from spnet.numerics import identity, mean, mean_where, softmax_kl, unit, widened

Triple = tuple[Tensor, Tensor, Tensor]
FORMS = ("within-stage", "stage", "kl")

RELATIVE_ZERO = 1e-4
"""A step no longer than this part of its longer end counts as zero.

The gradient of a direction is one over the step's length, so a nearly closed soft gate would pull without bound on
what is mostly rounding. 1e-4 bounds the pull at 1e4 over the feature's size; float32 rounds at 1e-7 of it, so a step
that just passes still has a direction good to three digits. Where readings come in a coarser type (bfloat16: 8e-3),
its rounding is the bound.
"""
ABSOLUTE_ZERO = 1e-15
"""Below this length squares leave the range of float32."""


def feature_evolution(
    readings: Sequence[Tensor] | Sequence[Triple],
    form: str = "within-stage",
    pairs: str = "adjoining",
    reduce: Callable[[Tensor], Tensor] = identity,
) -> Tensor:
    """Penalty on changes of direction: a sum over pairs of steps of the mean over samples of 1 - cos, each in [0, 2].

    - `within-stage`: readings are one (p, q, r) of (B, C_s) per stage, see `within_stage_readings`;
      sum over stages of mean_b [1 - cos(q - p, r - q)].
    - `stage`: readings are one aligned (B, D) a_s per stage. With `pairs="adjoining"`, e_s = a_{s+1} - a_s and the sum
      runs over the S - 2 adjoining (e_s, e_{s+1}); with `pairs="all"`, d_s = a_S - a_s for s < S and the sum runs over
      all (S-1)(S-2)/2 unordered (d_s, d_t), s < t.
    - `kl`: readings as for `stage`; sum over adjoining stages of mean_b KL(softmax(a_{s+1}) || softmax(a_s)), in nats.

    The mean runs over the samples whose two steps are longer than zero (see `RELATIVE_ZERO`); a pair of steps without
    any adds 0. Too few stages: 0. Source: SP-Net's L_evo; within-stage and all pairs [released code], adjoining
    [framework figure]. Deviation: the released code counts zero steps, with the gradient described above.

    Args:
        reduce: differentiable mean over processes: makes the mean over samples that of the global batch.
    """
    total = torch.zeros(())
    if _checked(form, pairs) == "kl":
        for this_BD, next_BD in pairwise(readings):
            total = total + reduce(mean(softmax_kl(next_BD, this_BD)))  # type: ignore[arg-type]
        return total
    for first_BC, second_BC, live_B in _step_pairs(readings, form, pairs):
        # A left-out step is set to zero before anything is divided, and `unit` gives zeros no gradient.
        live_B1 = live_B.unsqueeze(1)
        cosine_B = (unit(torch.where(live_B1, first_BC, 0)) * unit(torch.where(live_B1, second_BC, 0))).sum(1)
        total = total + mean_where(1 - cosine_B, live_B, reduce)
    return total


@torch.no_grad()
def zero_step_share(
    readings: Sequence[Tensor] | Sequence[Triple], form: str = "within-stage", pairs: str = "adjoining"
) -> Tensor:
    """Share of (sample, pair of steps) that `feature_evolution` leaves out; 0 for `kl`.

    For `within-stage` a pair of steps is a stage.
    """
    if _checked(form, pairs) == "kl":
        return torch.zeros(())
    left_out = [~live_B for _, _, live_B in _step_pairs(readings, form, pairs)]
    return mean(torch.stack(left_out)) if left_out else torch.zeros(())


def within_stage_readings(block_features: Sequence[Tensor], stage_slices: Sequence[slice]) -> list[Triple]:
    """The first, middle (index n // 2) and last pooled features of each stage of n blocks: three (B, C_s) per stage.

    A stage of one or two blocks reads a block twice: its step is always zero and always left out.
    """
    stages = [block_features[part] for part in stage_slices]
    return [(stage[0], stage[len(stage) // 2], stage[-1]) for stage in stages]


def _checked(form: str, pairs: str) -> str:
    choose("form of feature_evolution", form, FORMS)
    choose("pairs of feature_evolution", pairs, ("adjoining", "all"))
    if pairs == "all" and form != "stage":
        raise ValueError(f"pairs='all' has no effect on form='{form}': use form='stage' or pairs='adjoining'.")
    return form


def _step_pairs(readings: Sequence, form: str, pairs: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The (B, C) steps that are compared, and (B,) which samples have both."""
    if form == "within-stage":
        compared = [((p, q), (q, r)) for p, q, r in readings]
    elif pairs == "adjoining":
        compared = list(pairwise(pairwise(readings)))
    else:
        compared = list(combinations([(reading, readings[-1]) for reading in readings[:-1]], 2))
    for first, second in compared:
        first_BC, first_live_B = _step(*first)
        second_BC, second_live_B = _step(*second)
        yield first_BC, second_BC, first_live_B & second_live_B


def _step(start_BC: Tensor, end_BC: Tensor) -> tuple[Tensor, Tensor]:
    """The step between two readings, and (B,) whether it is long enough to have a direction."""
    relative = max(RELATIVE_ZERO, torch.finfo(start_BC.dtype).eps)
    start_BC, end_BC = widened(start_BC), widened(end_BC)
    step_BC = end_BC - start_BC
    with torch.no_grad():
        length_B, start_B, end_B = torch.linalg.vector_norm(torch.stack([step_BC, start_BC, end_BC]), dim=2)
        live_B = length_B > (relative * torch.maximum(start_B, end_B)).clamp_min(ABSOLUTE_ZERO)
    return step_BC, live_B
