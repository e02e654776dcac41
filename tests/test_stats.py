"""Statistics of decisions and features: degenerate input, hand-counted values, invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spnet.network.path_statistics import (
    always_blocks,
    decision_entropy,
    distinct_paths,
    evolution_kl,
    execution_rate_per_block,
    flip_share,
    path_agreement,
)

PROPERTY = settings(max_examples=25, deadline=None, database=None, derandomize=True)

# Four samples, four blocks; the last sample left after two blocks.
DECISIONS = torch.tensor([[1, 0, 2, 0], [1, 0, 1, 0], [1, 0, 0, 0], [1, 1, -1, -1]])


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_nothing_is_finite(shape):
    empty = torch.zeros(shape, dtype=torch.int64)
    assert execution_rate_per_block(empty).tolist() == [0.0] * shape[1]
    assert decision_entropy(empty).tolist() == [0.0] * shape[1]
    assert flip_share(empty, empty).item() == 0 and path_agreement(empty, empty).item() == 1
    assert distinct_paths(empty) == min(shape[0], 1)
    assert always_blocks(empty) == ((), ())


def test_nobody_reached_anything():
    unreached = torch.full((2, 2), -1)
    assert execution_rate_per_block(unreached).tolist() == decision_entropy(unreached).tolist() == [0.0, 0.0]
    assert flip_share(unreached, unreached).item() == 0
    assert always_blocks(unreached) == ((), ())
    assert distinct_paths(unreached) == 1


def test_execution_rates():
    assert execution_rate_per_block(DECISIONS).tolist() == [1.0, 0.25, 0.5, 0.0]
    assert execution_rate_per_block(DECISIONS[:1]).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_distinct_paths():
    assert distinct_paths(DECISIONS) == 4
    assert distinct_paths(DECISIONS.repeat(3, 1)) == 4
    assert distinct_paths(DECISIONS[:1].expand(5, -1)) == 1


def test_flips_and_agreement_count_decisions_that_were_made():
    after = DECISIONS.clone()
    assert flip_share(DECISIONS, after).item() == 0 and path_agreement(DECISIONS, after).item() == 1
    after[0, 0] = 0
    after[3, 2] = 1  # reached now, not before
    assert flip_share(DECISIONS, after).item() == pytest.approx(2 / 15)
    assert path_agreement(DECISIONS, after).item() == pytest.approx(13 / 15)
    assert flip_share(torch.zeros(2, 3), torch.ones(2, 3)).item() == 1
    with pytest.raises(ValueError, match="shape"):
        flip_share(DECISIONS, DECISIONS[:1])


def test_entropy_per_block_in_nats():
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    expected = torch.tensor([0.0, quarter, math.log(3), 0.0])
    torch.testing.assert_close(decision_entropy(DECISIONS), expected)


def test_blocks_that_always_decide_alike():
    assert always_blocks(DECISIONS) == ((0,), (3,))
    assert always_blocks(torch.tensor([[0, 1, 2, -1], [0, 2, 0, -1]])) == ((1,), (0,))
    # samples that left before a block say nothing about it
    assert always_blocks(torch.tensor([[1, 1, 0], [1, -1, -1]])) == ((0, 1), (2,))


@PROPERTY
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 4))
def test_order_and_copies_of_samples_change_nothing(seed, samples, options):
    g = torch.Generator().manual_seed(seed)
    decisions = torch.randint(-1, options, (samples, 3), generator=g)
    other = torch.randint(-1, options, (samples, 3), generator=g)
    order = torch.randperm(samples, generator=g)
    for rows in (order, torch.arange(samples).repeat(2)):
        assert distinct_paths(decisions[rows]) == distinct_paths(decisions)
        assert always_blocks(decisions[rows]) == always_blocks(decisions)
        torch.testing.assert_close(execution_rate_per_block(decisions[rows]), execution_rate_per_block(decisions))
        torch.testing.assert_close(decision_entropy(decisions[rows]), decision_entropy(decisions))
        torch.testing.assert_close(flip_share(decisions[rows], other[rows]), flip_share(decisions, other))
    assert (decision_entropy(decisions) <= math.log(options) + 1e-6).all()


def test_evolution_kl_of_too_few_or_equal_stages_is_zero():
    feature = torch.randn(3, 4)
    assert evolution_kl([]).item() == evolution_kl([feature]).item() == 0
    assert evolution_kl([feature, feature, feature]).item() == 0
    assert evolution_kl([torch.zeros(0, 4), torch.zeros(0, 2)]).item() == 0
    # a wider stage that pools to the same narrow one
    assert evolution_kl([feature, feature.repeat_interleave(2, 1)]).item() == pytest.approx(0, abs=1e-6)


def test_evolution_kl_by_hand():
    this = torch.tensor([[0.0, 0.0]])
    following = torch.tensor([[1.0, -1.0, 0.0, 2 * math.log(3.0)]])  # pools to (0, ln 3)
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert evolution_kl([this, following]).item() == pytest.approx(expected, abs=1e-6)
    # mean over pairs: the second pair is (0, ln 3) against itself
    assert evolution_kl([this, following, following]).item() == pytest.approx(expected / 2, abs=1e-6)
    backward = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert evolution_kl([following, this]).item() == pytest.approx(backward, abs=1e-6)


@PROPERTY
@given(st.integers(0, 2**31))
def test_evolution_kl_is_nonnegative_and_a_mean_over_samples(seed):
    g = torch.Generator().manual_seed(seed)
    stages = [5 * torch.randn(4, width, generator=g) for width in (16, 32, 24)]
    value = evolution_kl(stages)
    assert value >= 0
    torch.testing.assert_close(evolution_kl([stage.repeat(2, 1) for stage in stages]), value)


def test_evolution_kl_carries_no_gradient():
    stages = [torch.randn(2, 4, requires_grad=True) for _ in range(2)]
    assert not evolution_kl(stages).requires_grad
    assert evolution_kl([stage.bfloat16() for stage in stages]).dtype == torch.float32
