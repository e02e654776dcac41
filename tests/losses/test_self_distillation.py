"""The routed path follows the full one: worked numbers, which side teaches, degenerate batches."""

import math

import pytest
import torch

from spnet.losses import logit_alignment, self_distillation


def test_by_hand():
    """KL((1/4, 3/4) || (1/2, 1/2)), a mean over samples: the second sample agrees."""
    logits = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    full = torch.tensor([[0.0, math.log(3.0)], [5.0, 6.0]])
    kl = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert self_distillation(logits, full).item() == pytest.approx(kl / 2, abs=1e-6)
    assert self_distillation(full, logits).item() != pytest.approx(kl / 2, abs=1e-3)  # the full path is what is meant


def test_the_full_path_teaches_and_is_not_taught():
    logits = torch.tensor([[0.0, 0.0]], requires_grad=True)
    full = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    self_distillation(logits, full).backward()
    assert full.grad is None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.25, -0.25]]))  # softmax(logits) - softmax(full)


def test_it_is_the_kl_form_of_logit_alignment_with_one_stage():
    logits, full = torch.randn(5, 7), torch.randn(5, 7)
    expected = logit_alignment((logits,), (full,), (1.0,), form="kl")
    torch.testing.assert_close(self_distillation(logits, full), expected)


def test_nobody_and_one_class_say_nothing():
    assert self_distillation(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0
    assert self_distillation(torch.randn(4, 1), torch.randn(4, 1)).item() == 0
    same = torch.randn(4, 3)
    assert self_distillation(same, same + 2).item() == pytest.approx(0, abs=1e-6)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="same shapes"):
        self_distillation(torch.zeros(2, 3), torch.zeros(1, 3))
