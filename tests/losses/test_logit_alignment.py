"""L_logits: both forms, both targets, temperature, the detached target."""

import math

import pytest
import torch

from spnet.losses import logit_alignment


@pytest.mark.parametrize("target", ["same-stage", "last"])
def test_no_stages_is_zero(target):
    assert logit_alignment((), (), (), target=target).item() == 0


def test_mse_is_a_mean_over_samples_and_classes_and_a_weighted_sum_over_stages():
    student = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
    guide = (torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 2))
    assert logit_alignment(student, guide, (0.1, 1.0)).item() == pytest.approx(0.1 * 0.5 + 9 / 4, abs=1e-6)


def test_last_target_guides_every_stage():
    student = (torch.zeros(1, 2), torch.zeros(1, 2))
    guide = (torch.full((1, 2), 7.0), torch.ones(1, 2))
    assert logit_alignment(student, guide, (1.0, 1.0), target="last").item() == pytest.approx(2.0, abs=1e-6)
    assert logit_alignment(student, guide, (1.0, 1.0)).item() == pytest.approx(50.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kl_by_hand(temperature):
    student = torch.tensor([[0.0, 0.0]])
    guide = torch.tensor([[0.0, temperature * math.log(3.0)]])
    kl = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    loss = logit_alignment((student,), (guide,), (1.0,), form="kl", temperature=temperature)
    assert loss.item() == pytest.approx(temperature**2 * kl, abs=1e-6)


def test_the_gradient_of_kl_keeps_its_size_with_temperature():
    # For high temperatures T^2 KL tends to half the squared distance of centred logits over the classes.
    student = torch.tensor([[1.0, -1.0]], requires_grad=True)
    guide = torch.tensor([[0.5, -0.5]])
    loss = logit_alignment((student,), (guide,), (1.0,), form="kl", temperature=100.0)
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], (student - guide) / 2, atol=1e-3, rtol=0)


@pytest.mark.parametrize("form", ["mse", "kl"])
@pytest.mark.parametrize("target", ["same-stage", "last"])
def test_the_target_gets_no_gradient(form, target):
    student = [torch.randn(3, 4, requires_grad=True) for _ in range(2)]
    guide = [torch.randn(3, 4, requires_grad=True) for _ in range(2)]
    logit_alignment(student, guide, (0.5, 1.0), form=form, target=target).backward()
    assert all(z.grad is None for z in guide)
    assert all(z.grad is not None and z.grad.abs().sum() > 0 for z in student)


@pytest.mark.parametrize("form", ["mse", "kl"])
def test_equal_logits_and_one_class_are_zero_with_zero_gradient(form):
    for logits in (torch.randn(2, 3), torch.randn(2, 1)):
        student = logits.clone().requires_grad_()
        guide = logits if logits.shape[1] > 1 or form == "mse" else logits + 1
        loss = logit_alignment((student,), (guide,), (1.0,), form=form)
        assert loss.item() == 0
        torch.testing.assert_close(torch.autograd.grad(loss, student)[0], torch.zeros_like(logits), atol=1e-7, rtol=0)


def test_mistakes_are_errors():
    stage = (torch.zeros(2, 3),)
    with pytest.raises(ValueError, match="temperature"):
        logit_alignment(stage, stage, (1.0,), temperature=2.0)
    with pytest.raises(ValueError, match="form of logit_alignment"):
        logit_alignment(stage, stage, (1.0,), form="ce")
    with pytest.raises(ValueError, match="target of logit_alignment"):
        logit_alignment(stage, stage, (1.0,), target="first")
    with pytest.raises(ValueError, match="same shapes"):
        logit_alignment(stage, (torch.zeros(1, 3),), (1.0,))
    with pytest.raises(ValueError):
        logit_alignment(stage, stage, (1.0, 1.0))
