"""L_cls: values of the specification, degenerate input, gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from spnet.losses import default_stage_weights, stage_classification


def test_no_stages_and_no_samples_are_zero():
    labels = torch.tensor([0, 1])
    assert stage_classification((), labels, ()).item() == 0
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = stage_classification((logits,), torch.zeros(0, dtype=torch.int64), (1.0,))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].shape == (0, 3)


def test_one_class_is_certain():
    logits = torch.randn(4, 1, requires_grad=True)
    loss = stage_classification((logits,), torch.zeros(4, dtype=torch.int64), (1.0,))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


@pytest.mark.parametrize("batch", [1, 5])
def test_worked_uniform_logits(batch):
    stages = [torch.full((batch, 10), float(s)) for s in range(3)]
    loss = stage_classification(stages, torch.arange(batch) % 10, (0.1, 0.2, 1.0))
    assert loss.item() == pytest.approx(1.3 * math.log(10), abs=1e-6)
    assert loss.item() == pytest.approx(2.993361, abs=1e-6)


def test_worked_single_cross_entropy():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert stage_classification((logits,), torch.tensor([1]), (1.0,)).item() == pytest.approx(0.287682, abs=1e-6)


def test_is_the_weighted_sum_of_mean_cross_entropies():
    stages = [torch.randn(6, 4) for _ in range(3)]
    labels = torch.randint(4, (6,))
    expected = sum(w * F.cross_entropy(z, labels) for w, z in zip((0.1, 0.2, 1.0), stages, strict=True))
    torch.testing.assert_close(stage_classification(stages, labels, (0.1, 0.2, 1.0)), torch.as_tensor(expected))


def test_each_stage_gets_its_share_of_the_gradient():
    logits = torch.randn(5, 3)
    labels = torch.randint(3, (5,))
    stages = [logits.clone().requires_grad_() for _ in range(2)]
    first, second = torch.autograd.grad(stage_classification(stages, labels, (0.2, 1.0)), stages)
    torch.testing.assert_close(first, 0.2 * second)


def test_a_missing_weight_is_an_error():
    with pytest.raises(ValueError, match="one weight per stage"):
        stage_classification((torch.zeros(1, 2),), torch.tensor([0]), (0.1, 1.0))


def test_default_weights():
    assert default_stage_weights(1) == (1.0,)
    assert default_stage_weights(2) == (0.2, 1.0)
    assert default_stage_weights(3) == (0.1, 0.2, 1.0)
    assert default_stage_weights(4) == (0.01, 0.1, 0.2, 1.0)
    assert default_stage_weights(6) == (0.01, 0.01, 0.01, 0.1, 0.2, 1.0)
    with pytest.raises(ValueError, match="at least one stage"):
        default_stage_weights(0)
