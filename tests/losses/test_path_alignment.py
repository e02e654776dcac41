"""L_path: values of the specification, blocks with different options, the detached target."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spnet.losses import path_alignment

PROPERTY = settings(max_examples=25, deadline=None, database=None, derandomize=True)


@pytest.mark.parametrize("form", ["mse", "kl"])
def test_no_blocks_is_a_zero_that_adds_anywhere(form):
    loss = path_alignment((), (), form=form)
    assert loss.shape == () and loss.item() == 0
    assert (loss + torch.ones((), dtype=torch.float64)).dtype == torch.float64


def test_worked_mse():
    student = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]),)
    target = (torch.tensor([[0.0, 0.0], [0.0, 1.0]]),)
    assert path_alignment(student, target).item() == pytest.approx(0.5, abs=1e-6)


def test_worked_kl_is_target_against_student():
    student = (torch.tensor([[0.0, 0.0]]),)
    target = (torch.tensor([[0.0, math.log(3.0)]]),)
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert path_alignment(student, target, form="kl").item() == pytest.approx(expected, abs=1e-6)


def test_every_block_weighs_the_same_however_many_options_it_has():
    student = (torch.ones(2, 2), torch.full((2, 3), 2.0), torch.full((2, 2), 3.0))
    target = tuple(torch.zeros_like(z) for z in student)
    assert path_alignment(student, target).item() == pytest.approx((1 + 4 + 9) / 3, abs=1e-6)


@pytest.mark.parametrize("form", ["mse", "kl"])
def test_grouping_equals_the_loop_over_blocks(form):
    shapes = [(4, 2), (4, 3), (4, 2), (4, 5)]
    student, target = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    alone = [path_alignment([s], [t], form=form) for s, t in zip(student, target, strict=True)]
    torch.testing.assert_close(path_alignment(student, target, form=form), torch.stack(alone).mean())


@pytest.mark.parametrize("form", ["mse", "kl"])
def test_the_target_gets_no_gradient(form):
    student, target = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    path_alignment((student,), (target,), form=form).backward()
    assert target.grad is None
    assert student.grad is not None and student.grad.abs().sum() > 0


@pytest.mark.parametrize("form", ["mse", "kl"])
def test_zero_and_flat_at_the_target(form):
    student = torch.randn(3, 4, requires_grad=True)
    loss = path_alignment((student,), (student,), form=form)
    assert loss.item() == 0
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], torch.zeros(3, 4), atol=1e-7, rtol=0)


@PROPERTY
@given(st.integers(0, 2**31), st.floats(-5, 5), st.integers(1, 5))
def test_kl_is_nonnegative_and_ignores_a_shift(seed, shift, options):
    g = torch.Generator().manual_seed(seed)
    student, target = (10 * torch.randn(3, options, generator=g) for _ in range(2))
    loss = path_alignment((student,), (target,), form="kl")
    assert loss.item() >= -1e-6
    torch.testing.assert_close(path_alignment((student + shift,), (target,), form="kl"), loss, atol=1e-5, rtol=1e-5)


@PROPERTY
@given(st.integers(0, 2**31))
def test_order_of_samples_and_a_duplicated_batch_change_nothing(seed):
    g = torch.Generator().manual_seed(seed)
    student, target = ([torch.randn(4, 2, generator=g) for _ in range(3)] for _ in range(2))
    order = torch.randperm(4, generator=g)
    for form in ("mse", "kl"):
        loss = path_alignment(student, target, form=form)
        shuffled = path_alignment([z[order] for z in student], [z[order] for z in target], form=form)
        doubled = path_alignment([z.repeat(2, 1) for z in student], [z.repeat(2, 1) for z in target], form=form)
        torch.testing.assert_close(shuffled, loss)
        torch.testing.assert_close(doubled, loss)


def test_shapes_that_would_broadcast_are_an_error():
    with pytest.raises(ValueError, match="same shapes"):
        path_alignment((torch.zeros(4, 2),), (torch.zeros(1, 2),))
    with pytest.raises(ValueError, match="same shapes"):
        path_alignment((torch.zeros(4, 2),) * 2, (torch.zeros(4, 2),))
    with pytest.raises(ValueError, match="form of path_alignment"):
        path_alignment((), (), form="l1")
