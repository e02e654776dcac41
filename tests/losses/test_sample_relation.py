"""RDI-Net's L_A and L_B: values of the specification, invariances, degenerate matrices."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spnet.losses import (
    contrastive_relation,
    entropy_similarity,
    matching_relation,
    pairwise_similarity,
    path_gram,
)

PROPERTY = settings(max_examples=25, deadline=None, database=None, derandomize=True)

PATH = torch.tensor([[1.0, 0, 0, 0, 0, 1]])
NEGATIVES = torch.tensor([[1.0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]])


@pytest.mark.parametrize(("temperature", "value"), [(1.0, 0.680270), (0.5, 0.407606), (0.07, 0.000791)])
def test_worked_contrastive(temperature, value):
    loss = contrastive_relation(PATH, PATH, NEGATIVES, temperature)
    assert loss.item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_equal_similarities_are_worth_the_log_of_their_number(count):
    loss = contrastive_relation(PATH.repeat(3, 1), PATH.repeat(3, 1), PATH.repeat(count, 1), 0.3)
    assert loss.item() == pytest.approx(math.log(count + 1), abs=1e-6)


@PROPERTY
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_contrastive_ignores_the_length_of_a_path(seed, scale):
    g = torch.Generator().manual_seed(seed)
    q, k, negatives = (torch.rand(n, 6, generator=g) for n in (3, 3, 5))
    loss = contrastive_relation(q, k, negatives)
    for scaled in ((scale * q, k, negatives), (q, scale * k, negatives), (q, k, scale * negatives)):
        torch.testing.assert_close(contrastive_relation(*scaled), loss, atol=1e-5, rtol=1e-5)


def test_contrastive_pulls_copies_and_never_the_queue():
    q, k, negatives = (torch.rand(n, 6, requires_grad=True) for n in (3, 3, 5))
    contrastive_relation(q, k, negatives).backward()
    assert negatives.grad is None
    assert q.grad is not None and q.grad.any() and k.grad is not None and k.grad.any()


def test_a_path_of_zeros_has_no_direction_and_no_gradient():
    q, k = torch.zeros(2, 4, requires_grad=True), torch.ones(2, 4, requires_grad=True)
    loss = contrastive_relation(q, k, torch.eye(1, 4))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    for gradient in torch.autograd.grad(loss, (q, k)):
        assert not gradient.any()


def test_worked_matching_as_released():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    similarity = entropy_similarity(logits)
    assert similarity[0, 0].item() == pytest.approx(1.0, abs=1e-6)
    assert similarity[0, 1].item() == pytest.approx(0.811278, abs=1e-6)
    gram = path_gram(torch.tensor([[1.0, 0, 1], [0, 1, 1]]))
    assert gram.tolist() == [[2.0, 1.0], [1.0, 2.0]]
    assert matching_relation(similarity, gram).item() == pytest.approx(0.223607, abs=1e-6)


def test_the_released_similarity_says_nothing_about_pairs():
    similarity = entropy_similarity(torch.randn(4, 5))
    columns = similarity / similarity.norm(dim=0)
    torch.testing.assert_close(columns, columns[:, :1].expand(4, 4))


def test_pairwise_similarity_is_the_cosine():
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    expected = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(pairwise_similarity(features), expected)


def test_matching_moves_paths_not_features():
    features, paths = torch.randn(4, 3, requires_grad=True), torch.rand(4, 6, requires_grad=True)
    matching_relation(pairwise_similarity(features), path_gram(paths)).backward()
    assert features.grad is None
    assert paths.grad is not None and paths.grad.any()


def test_equal_matrices_match_whatever_their_scale():
    gram = path_gram(torch.rand(4, 6))
    assert matching_relation(3 * gram, gram).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_zero_columns_and_small_batches_are_finite(batch):
    paths = torch.zeros(batch, 4, requires_grad=True)
    loss = matching_relation(entropy_similarity(torch.zeros(batch, 1)), path_gram(paths))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, paths)[0].any()


@PROPERTY
@given(st.integers(0, 2**31))
def test_order_of_samples_changes_nothing(seed):
    g = torch.Generator().manual_seed(seed)
    features, paths = torch.randn(5, 3, generator=g), torch.rand(5, 6, generator=g)
    order = torch.randperm(5, generator=g)
    loss = matching_relation(pairwise_similarity(features), path_gram(paths))
    shuffled = matching_relation(pairwise_similarity(features[order]), path_gram(paths[order]))
    torch.testing.assert_close(shuffled, loss)


def test_products_keep_float32_under_autocast():
    q, k, negatives = torch.rand(3, 4, 64)
    plain = contrastive_relation(q, k, negatives), path_gram(q), pairwise_similarity(q)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = contrastive_relation(q, k, negatives), path_gram(q), pairwise_similarity(q)
    for a, b in zip(plain, cast, strict=True):
        assert torch.equal(a, b)
