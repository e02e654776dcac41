"""CoDiNet's L_con and L_div: values of the specification, equal paths, one image, invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spnet.losses import (
    consistency,
    cost_deviation_of_mean,
    diversity,
    executed_blocks,
    path_vectors,
)

PROPERTY = settings(max_examples=25, deadline=None, database=None, derandomize=True)

RUN = torch.tensor([[1.0, 0.0], [0.6, 0.0], [0.0, 1.0], [0.0, 0.6]])
"""The worked example's g0 (run): two images, two copies, two blocks."""


def gates(run_BL: Tensor, run_first: bool) -> list[Tensor]:
    return [torch.stack([run, 1 - run] if run_first else [1 - run, run], 1) for run in run_BL.unbind(1)]


@pytest.mark.parametrize("run_first", [True, False])
def test_worked_values_in_either_order_of_the_options(run_first):
    paths = path_vectors(gates(RUN, run_first))
    assert paths.shape == (4, 4)
    assert consistency(paths, 2, 0.25).item() == pytest.approx(0.00107864, abs=1e-8)
    assert consistency(paths, 2, 0.2).item() == pytest.approx(0.00686292, abs=1e-8)
    assert consistency(paths, 2, 0.0).item() == pytest.approx(0.08, abs=1e-6)
    assert diversity(paths, 2, 0.5).item() == 0
    assert diversity(paths, 2, 2.0).item() == pytest.approx(0.16, abs=1e-6)


def test_paths_lie_at_most_root_2l_apart():
    """All blocks against none, ResNet-110: 10.39."""
    run = torch.stack([torch.ones(54), torch.zeros(54)])
    paths = path_vectors(gates(run, True))
    assert torch.dist(paths[0], paths[1]).item() == pytest.approx(math.sqrt(2 * 54)) == pytest.approx(10.39, abs=5e-3)
    assert diversity(paths, 1, 10.3).item() == 0 < diversity(paths, 1, 10.5).item()


def test_worked_objective():
    paths = path_vectors(gates(RUN, True))
    relation = consistency(paths, 2, 0.25) + diversity(paths, 2, 2.0)
    cost = cost_deviation_of_mean(executed_blocks(gates(RUN, False)), 1.0)
    released_weight = 0.01
    total = 0.5 + 0.1 * relation + released_weight * len(RUN) * cost
    assert total.item() == pytest.approx(0.52410786, abs=1e-6)


def test_centres_lie_0_8_root_2_apart_on_the_run_gates_alone():
    distance = 1.131371
    margin = 1.5
    assert diversity(RUN, 2, margin).item() == pytest.approx((margin - distance) ** 2, abs=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_one_copy_is_consistent_with_itself(margin):
    paths = torch.rand(3, 4, requires_grad=True)
    loss = consistency(paths, 1, margin)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, paths)[0].any()


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_equal_paths_have_finite_gradients(margin):
    paths = torch.ones(4, 6, requires_grad=True)
    close, apart = consistency(paths, 2, margin), diversity(paths, 2, margin)
    assert close.item() == 0
    assert apart.item() == pytest.approx(margin**2)
    for loss in (close, apart):
        assert torch.equal(torch.autograd.grad(loss, paths)[0], torch.zeros(4, 6))


def test_one_image_is_diverse():
    paths = torch.rand(3, 4, requires_grad=True)
    loss = diversity(paths, 3, 1.0)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, paths)[0].any()


def test_nothing_at_all():
    for paths in (path_vectors([]), torch.zeros(0, 4)):
        assert consistency(paths, 2, 0.0).item() == diversity(paths, 2, 1.0).item() == 0


def test_zero_where_margins_hold():
    near = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.0, 5.1]], requires_grad=True)
    assert consistency(near, 2, 0.05 + 1e-6).item() == 0
    assert diversity(near, 2, 5.0).item() == 0


def test_diversity_is_a_mean_over_unordered_pairs():
    paths = torch.rand(5, 3, dtype=torch.float64)
    pairs = [(paths[i] - paths[j]).norm() for i in range(5) for j in range(i)]
    expected = torch.stack([(1 - d).clamp(min=0) ** 2 for d in pairs]).mean()
    torch.testing.assert_close(diversity(paths, 1, 1.0), expected)


def test_gradient_is_the_derivative():
    paths = torch.rand(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: consistency(x, 2, 0.1) + diversity(x, 2, 1.5), paths)


@PROPERTY
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 3]), st.floats(0, 2))
def test_order_of_images_and_of_copies_changes_nothing(seed, copies, margin):
    g = torch.Generator().manual_seed(seed)
    paths = torch.rand(4 * copies, 6, generator=g)
    images = paths.view(4, copies, 6)[torch.randperm(4, generator=g)]
    shuffled = images[:, torch.randperm(copies, generator=g)].reshape(-1, 6)
    for loss in (consistency, diversity):
        torch.testing.assert_close(loss(shuffled, copies, margin), loss(paths, copies, margin), atol=1e-6, rtol=1e-5)


def test_broken_groups_are_an_error():
    with pytest.raises(ValueError, match="whole groups"):
        consistency(torch.zeros(5, 2), 2, 0.0)
    with pytest.raises(ValueError, match="whole groups"):
        diversity(torch.zeros(5, 2), 0, 0.0)
