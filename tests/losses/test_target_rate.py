"""L_rate, L_cost and CoDiNet's cost: values of the specifications, options beyond two, gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spnet.losses import cost_deviation, cost_deviation_of_mean, executed_blocks, execution_rates, target_rate

PROPERTY = settings(max_examples=25, deadline=None, database=None, derandomize=True)


def two_option_gates(run_BL: Tensor) -> list[Tensor]:
    """(B, L) run gates -> one (B, 2) of (skip, run) per block."""
    return [torch.stack([1 - run, run], 1) for run in run_BL.unbind(1)]


AIG = torch.tensor([[1.0, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]]).T
"""ConvNet-AIG's worked decisions: three blocks, four samples."""


def test_no_gates_and_no_samples():
    assert execution_rates([]).shape == (0,)
    assert target_rate(execution_rates([]), 0.5).item() == 0
    assert cost_deviation(executed_blocks([]), 0.0).item() == 0
    empty = [torch.zeros(0, 2, requires_grad=True)]
    assert execution_rates(empty).tolist() == [0.0]
    assert executed_blocks(empty).shape == (0,)
    assert cost_deviation(executed_blocks(empty), 3.0).item() == 0


@pytest.mark.parametrize(("run", "value"), [(0.0, 0.64), (1.0, 0.04)])
def test_all_closed_and_all_open_in_a_batch_of_one(run, value):
    gates = [gate.requires_grad_() for gate in two_option_gates(torch.full((1, 4), run))]
    loss = target_rate(execution_rates(gates), 0.8)
    assert loss.item() == pytest.approx(value, abs=1e-6)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, gates))
    assert executed_blocks(gates).tolist() == [4 * run]


def test_worked_spnet():
    rates = torch.tensor([0.5, 1.0])
    assert target_rate(rates, 0.8).item() == pytest.approx(0.065, abs=1e-6)
    assert target_rate(rates, 0.8, one_sided=True).item() == pytest.approx(0.02, abs=1e-6)


def test_worked_convnet_aig():
    rates = execution_rates(two_option_gates(AIG))
    assert rates.tolist() == [0.75, 0.25, 1.0]
    assert target_rate(rates, 0.6, reduction="sum").item() == pytest.approx(0.3050, abs=1e-6)
    assert target_rate(rates, 0.6).item() == pytest.approx(0.101667, abs=1e-6)
    assert 2 * target_rate(rates, 0.6).item() == pytest.approx(0.203333, abs=1e-6)
    # with the worked cross-entropy: the whole objective
    assert 0.287682 + 2 * target_rate(rates, 0.6).item() == pytest.approx(0.491015, abs=1e-6)
    # the global rate is another, far looser loss
    assert target_rate(rates.mean(), 0.6).item() == pytest.approx(0.004444, abs=1e-6)


def test_worked_convnet_aig_gradient():
    run = AIG.clone().requires_grad_()
    loss = 2 * target_rate(execution_rates(two_option_gates(run)), 0.6)
    (gradient,) = torch.autograd.grad(loss, run)
    expected = torch.tensor([0.05, -0.116667, 0.133333]).expand(4, 3)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


def test_one_target_per_block():
    rates = torch.tensor([0.5, 1.0])
    assert target_rate(rates, torch.tensor([0.5, 0.9])).item() == pytest.approx(0.005, abs=1e-6)


@PROPERTY
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.booleans(), st.sampled_from(["mean", "sum"]))
def test_zero_and_flat_at_the_target(rates, one_sided, reduction):
    rates_L = torch.tensor(rates, requires_grad=True)
    loss = target_rate(rates_L, rates_L.detach().clone(), one_sided=one_sided, reduction=reduction)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, rates_L)[0].any()


@PROPERTY
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_one_sided_asks_nothing_of_rates_below(seed, target):
    rates = torch.rand(6, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    loss = target_rate(rates, target, one_sided=True)
    (gradient,) = torch.autograd.grad(loss, rates)
    assert torch.equal(gradient != 0, rates > target)
    assert loss <= target_rate(rates, target)


@PROPERTY
@given(st.integers(0, 2**31))
def test_order_of_samples_and_a_duplicated_batch_change_nothing(seed):
    g = torch.Generator().manual_seed(seed)
    run = torch.rand(5, 3, generator=g)
    changed = [run[torch.randperm(5, generator=g)], run.repeat(2, 1)]
    for losses in (
        lambda x: target_rate(execution_rates(two_option_gates(x)), 0.6),
        lambda x: cost_deviation(executed_blocks(two_option_gates(x)), 1.5),
        lambda x: cost_deviation_of_mean(executed_blocks(two_option_gates(x)), 1.5),
    ):
        for other in changed:
            torch.testing.assert_close(losses(other), losses(run))


def test_options_cost_evenly_from_nothing_to_full():
    gates = [torch.eye(3), torch.eye(2)[[0, 1, 1]], torch.eye(3)[[2, 2, 2]], torch.ones(3, 1)]
    torch.testing.assert_close(execution_rates(gates), torch.tensor([0.5, 2 / 3, 1.0, 0.0]))
    torch.testing.assert_close(executed_blocks(gates), torch.tensor([1.0, 2.5, 3.0]))


def test_given_costs():
    gates = [torch.eye(3), torch.eye(2)[[0, 1, 1]], torch.eye(3)[[2, 2, 2]]]
    costs = [torch.tensor([0.0, 0.2, 1.0]), torch.tensor([0.0, 0.9]), torch.tensor([0.1, 0.2, 0.8])]
    torch.testing.assert_close(execution_rates(gates, costs), torch.tensor([0.4, 0.6, 0.8]))
    torch.testing.assert_close(executed_blocks(gates, costs), torch.tensor([0.8, 1.9, 2.7]))
    with pytest.raises(ValueError, match="option_costs"):
        execution_rates(gates, costs[:2])
    with pytest.raises(ValueError, match="option_costs"):
        execution_rates(gates, costs[::-1][1:] + costs[:1])


def test_worked_codinet_cost():
    executed = executed_blocks(two_option_gates(torch.tensor([[1.0, 0], [0.6, 0], [0, 1], [0, 0.6]])))
    per_sample = cost_deviation_of_mean(executed, 1.0)
    assert per_sample.item() == pytest.approx(0.2, abs=1e-6)
    assert 4 * per_sample.item() == pytest.approx(0.8, abs=1e-6)  # the released batch sum


def test_per_sample_cost_sees_what_the_mean_hides():
    executed = torch.tensor([0.0, 2.0], requires_grad=True)
    assert cost_deviation(executed, 1.0).item() == pytest.approx(1.0)
    assert cost_deviation_of_mean(executed, 1.0).item() == 0
    torch.testing.assert_close(
        torch.autograd.grad(cost_deviation(executed, 1.0), executed)[0], torch.tensor([-0.5, 0.5])
    )
    on_target = torch.ones(3, requires_grad=True)
    assert not torch.autograd.grad(cost_deviation(on_target, 1.0), on_target)[0].any()


def test_unknown_reduction_is_an_error():
    with pytest.raises(ValueError, match="reduction of target_rate"):
        target_rate(torch.ones(1), 1.0, reduction="none")
