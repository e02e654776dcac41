"""Samplers: worked Gumbel numbers, exact one-hots, gradients, frequencies, determinism, degenerate batches."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from spnet.network.sampling import (
    AllRun,
    AllSkip,
    Argmax,
    Bounded,
    Categorical,
    Forced,
    GumbelSoft,
    GumbelStraightThrough,
    Sampler,
    StraightThrough,
    Uniform,
    gumbel_like,
    gumbel_softmax_with,
    largest,
    one_hot,
    straight_through,
)

PROPERTY = settings(max_examples=30, deadline=None, database=None, derandomize=True)

SAMPLERS: dict[str, Sampler] = {
    "argmax": Argmax(),
    "gumbel": GumbelStraightThrough(),
    "gumbel-cold": GumbelStraightThrough(0.1),
    "soft": GumbelSoft(),
    "straight": StraightThrough(),
    "categorical": Categorical(),
    "bounded": Bounded(),
    "unbounded": Bounded(1.0),
    "uniform": Uniform(),
    "all-run": AllRun(),
    "all-skip": AllSkip(),
    "forced": Forced(torch.tensor([[1, 0, -1]])),
}
STOCHASTIC = {name for name, sampler in SAMPLERS.items() if sampler.stochastic}
SOFT = {"soft"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def options_for(name: str) -> tuple[int, ...]:
    return (2,) if "bounded" in name else (2, 3, 5)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("batch", [0, 1, 7])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_every_draw_is_a_distribution_with_finite_log_probability(name, batch, scale):
    for options in options_for(name):
        logits = (scale * torch.randn(batch, options)).requires_grad_()
        gate, log_prob = SAMPLERS[name](0, logits, generator())
        assert gate.shape == (batch, options) and log_prob.shape == (batch,)
        assert gate.dtype == log_prob.dtype == torch.float32
        torch.testing.assert_close(gate.sum(1), torch.ones(batch))
        assert log_prob.isfinite().all() and (log_prob <= 0).all()
        if name not in SOFT:
            assert ((gate == 0) | (gate == 1)).all()
        out = gate.sum() + log_prob.sum()
        if out.requires_grad:
            assert torch.autograd.grad(out, logits)[0].isfinite().all()


def test_one_option_is_always_drawn():
    for name in set(SAMPLERS) - {"bounded", "unbounded", "forced"}:
        gate, log_prob = SAMPLERS[name](0, torch.randn(4, 1), generator())
        assert gate.tolist() == [[1.0]] * 4 and not log_prob.any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_noise_comes_from_the_given_generator_only(name):
    logits, sampler = torch.randn(200, 2), SAMPLERS[name]
    with torch.random.fork_rng():
        state = torch.get_rng_state()
        first, again, other = (sampler(0, logits, generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first.gate_BK, again.gate_BK)
        assert torch.equal(first.gate_BK, other.gate_BK) is (name not in STOCHASTIC)
        sampler(0, logits, None)
        assert torch.equal(torch.get_rng_state(), state) is (name not in STOCHASTIC)


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"uniform", "all-run", "all-skip"}))
def test_float32_under_autocast(name):
    logits, sampler = torch.randn(5, 2).bfloat16(), SAMPLERS[name]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = sampler(0, logits, generator())
    plain = sampler(0, logits.float(), generator())
    assert torch.equal(cast.gate_BK, plain.gate_BK) and torch.equal(cast.log_prob_B, plain.log_prob_B)
    assert cast.gate_BK.dtype == torch.float32


def test_who_needs_a_router():
    unasked = {name for name, sampler in SAMPLERS.items() if not sampler.needs_logits}
    assert unasked == {"uniform", "all-run", "all-skip"}


def test_worked_gumbel():
    logits, noise = torch.tensor([[0.1, 2.0]], requires_grad=True), torch.tensor([[0.5, -0.5]])
    soft = gumbel_softmax_with(logits, noise, 1.0)
    torch.testing.assert_close(soft, torch.tensor([[0.289050, 0.710949]]), atol=1e-6, rtol=0)
    gate = straight_through(one_hot(largest(soft), soft), soft)
    assert gate.tolist() == [[0.0, 1.0]]
    (slope,) = torch.autograd.grad(gate[0, 1], logits)
    torch.testing.assert_close(slope, torch.tensor([[-0.205500, 0.205500]]), atol=1e-6, rtol=0)


def test_temperature_divides_logits_and_noise():
    soft = gumbel_softmax_with(torch.tensor([[0.1, 2.0]]), torch.tensor([[0.5, -0.5]]), 0.5)
    assert soft[0, 1].item() == pytest.approx(1 / (1 + math.exp(-0.9 / 0.5)), abs=1e-6)
    logits = torch.randn(5, 3)
    expected = gumbel_softmax_with(logits, gumbel_like(logits, generator(3)), 0.2)
    assert torch.equal(GumbelSoft(0.2)(0, logits, generator(3)).gate_BK, expected)


@PROPERTY
@given(st.integers(0, 2**31), st.integers(2, 5), st.floats(0.1, 5))
def test_straight_through_is_hard_forward_and_soft_backward(seed, options, tau):
    logits = torch.randn(6, options, generator=generator(seed)).requires_grad_()
    weights = torch.randn(6, options, generator=generator(seed + 1))
    hard_gate = GumbelStraightThrough(tau)(0, logits, generator(seed)).gate_BK
    soft_gate = GumbelSoft(tau)(0, logits, generator(seed)).gate_BK
    assert set(hard_gate.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(hard_gate.argmax(1), soft_gate.argmax(1))
    slopes = [torch.autograd.grad((gate * weights).sum(), logits)[0] for gate in (hard_gate, soft_gate)]
    assert torch.equal(*slopes)


def test_straight_through_on_the_probability():
    """SkipNet: p = 0.3 gives a closed gate, and a slope of 5 at the gate arrives as 5 at p."""
    p = torch.tensor([0.3, 0.7], requires_grad=True)
    logits = torch.stack([torch.zeros(2), torch.logit(p)], 1)
    gate = StraightThrough()(0, logits, None).gate_BK
    assert gate[:, 1].tolist() == [0.0, 1.0]
    (slope,) = torch.autograd.grad(5 * gate[:, 1].sum(), p)
    torch.testing.assert_close(slope, torch.tensor([5.0, 5.0]))


@pytest.mark.parametrize("sampler", [Argmax(), StraightThrough()])
def test_ties_take_the_lowest_option(sampler):
    assert sampler(0, torch.zeros(3, 2), None).gate_BK.tolist() == [[1.0, 0.0]] * 3
    assert sampler(0, torch.tensor([[0.0, 1.0, 1.0]]), None).gate_BK.tolist() == [[0.0, 1.0, 0.0]]


def test_argmax_carries_no_gradient():
    draw = Argmax()(0, torch.randn(3, 2, requires_grad=True), None)
    assert not draw.gate_BK.requires_grad and not draw.log_prob_B.any()


@pytest.mark.parametrize("sampler", [Categorical(), Bounded()])
def test_sampled_gates_carry_no_gradient_but_their_log_probability_does(sampler):
    logits = torch.randn(5, 2, requires_grad=True)
    draw = sampler(0, logits, generator())
    assert not draw.gate_BK.requires_grad
    assert torch.autograd.grad(draw.log_prob_B.sum(), logits)[0].abs().sum() > 0


@pytest.mark.parametrize("sampler", [GumbelStraightThrough(), GumbelSoft(), Categorical()])
@pytest.mark.parametrize("options", [2, 4])
def test_log_probability_is_the_softmax_of_the_drawn_option(sampler, options):
    logits = torch.randn(50, options)
    draw = sampler(0, logits, generator())
    expected = F.log_softmax(logits, 1)[torch.arange(50), draw.gate_BK.argmax(1)]
    torch.testing.assert_close(draw.log_prob_B, expected)


def test_log_probability_of_bounded_and_uniform():
    logits = torch.tensor([[0.0, math.log(9.0)]]).expand(300, 2)  # p = 0.9, bounded 0.74
    draw = Bounded()(0, logits, generator())
    expected = torch.where(draw.gate_BK[:, 1] > 0, math.log(0.74), math.log(0.26))
    torch.testing.assert_close(draw.log_prob_B, expected)
    assert Uniform()(0, torch.zeros(2, 3), None).log_prob_B.tolist() == pytest.approx([-math.log(3)] * 2)


DRAWS = 100_000


@pytest.mark.parametrize("sampler", [GumbelStraightThrough(), GumbelStraightThrough(5.0), GumbelSoft(), Categorical()])
def test_frequencies_follow_the_softmax(sampler):
    logits = torch.tensor([0.5, -1.0, 1.0])
    draw = sampler(0, logits.expand(DRAWS, 3), generator())
    frequency = draw.gate_BK.argmax(1).bincount(minlength=3) / DRAWS
    torch.testing.assert_close(frequency, logits.softmax(0), atol=0.005, rtol=0)


def test_opening_bias_runs_87_percent():
    draw = GumbelStraightThrough()(0, torch.tensor([0.1, 2.0]).expand(DRAWS, 2), generator())
    assert draw.gate_BK[:, 1].mean().item() == pytest.approx(0.870, abs=0.005)


@pytest.mark.parametrize(("p", "bounded"), [(0.9, 0.74), (0.3, 0.38), (0.5, 0.5)])
def test_bounded_frequencies(p, bounded):
    logits = torch.tensor([0.0, math.log(p / (1 - p))]).expand(DRAWS, 2)
    assert Bounded()(0, logits, generator()).gate_BK[:, 1].mean().item() == pytest.approx(bounded, abs=0.005)


@pytest.mark.parametrize("options", [2, 3])
def test_uniform_draws_each_option_alike_and_independently_whatever_the_logits(options):
    noise = generator()
    logits = torch.full((DRAWS, options), 1e3) * torch.arange(options)
    first, second = (Uniform()(i, logits, noise).gate_BK.argmax(1) for i in range(2))
    joint = (first * options + second).bincount(minlength=options**2) / DRAWS
    torch.testing.assert_close(joint, torch.full((options**2,), options**-2.0), atol=0.01, rtol=0)
    assert first.max() < options


def test_gumbel_noise_is_finite_with_the_right_moments():
    noise = gumbel_like(torch.empty(1_000_000), generator())
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.577216, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.02)


def test_gumbel_noise_survives_an_exponential_of_zero(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda x, generator=None: x.zero_())
    assert gumbel_like(torch.empty(3), None).isfinite().all()


def test_all_run_takes_the_last_option_and_all_skip_the_first():
    assert AllRun()(0, torch.zeros(2, 3), None).gate_BK.tolist() == [[0.0, 0.0, 1.0]] * 2
    assert AllSkip()(0, torch.zeros(2, 3), None).gate_BK.tolist() == [[1.0, 0.0, 0.0]] * 2


def test_forced_reads_its_column():
    forced = Forced(torch.tensor([[0, 2], [1, -1]], dtype=torch.int32))
    assert forced(0, torch.randn(2, 3), None).gate_BK.argmax(1).tolist() == [0, 1]
    assert forced(1, torch.randn(2, 3), None).gate_BK.argmax(1).tolist() == [2, 0]  # unreached: skip
    for_all = Forced(torch.tensor([[2, 1]]))
    assert for_all(0, torch.randn(4, 3), None).gate_BK.argmax(1).tolist() == [2] * 4


def test_settings_are_checked():
    for wrong in (
        lambda: GumbelStraightThrough(0.0),
        lambda: GumbelSoft(-1.0),
        lambda: Bounded(0.2),
        lambda: Bounded(2),
    ):
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(ValueError, match="two options"):
        Bounded()(0, torch.zeros(1, 3), None)
    assert GumbelStraightThrough() == GumbelStraightThrough(1.0) != GumbelStraightThrough(2.0)
