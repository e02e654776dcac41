"""L_evo: the trap of zero-length steps first, then values, invariances and the other forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spnet.losses import feature_evolution, within_stage_readings, zero_step_share

PROPERTY = settings(max_examples=30, deadline=None, database=None, derandomize=True)


def triple(p, q, r, requires_grad: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    p, q, r = (torch.tensor(x, dtype=torch.float32, requires_grad=requires_grad) for x in (p, q, r))
    return p, q, r


def paired(first: list, second: list) -> tuple[list, list, list]:
    """Two samples' (p, q, r) as one batch."""
    p, q, r = ([a, b] for a, b in zip(first, second, strict=True))
    return p, q, r


def test_trap_naive_cosine_explodes_at_a_zero_step_where_ours_is_silent():
    """A skipped block makes a step exactly zero. This destroyed the training of prototypes (27 % instead of 59 %)."""
    p, q, r = triple([[1.0, 2.0]], [[1.0, 2.0]], [[1.5, 1.0]], requires_grad=True)
    naive = (1 - F.cosine_similarity(q - p, r - q)).mean()
    assert torch.autograd.grad(naive, q)[0].abs().max() > 1e7
    ours = feature_evolution([(p, q, r)])
    assert ours.item() == 0
    for gradient in torch.autograd.grad(ours, (p, q, r)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("which", ["first", "second", "both"])
def test_a_zero_step_is_neither_counted_nor_pulled(which):
    live = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]  # cos 0: worth 1
    dead = {
        "first": [[2.0, 1.0], [2.0, 1.0], [3.0, 5.0]],
        "second": [[2.0, 1.0], [3.0, 5.0], [3.0, 5.0]],
        "both": [[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]],
    }[which]
    p, q, r = triple(*paired(live, dead), requires_grad=True)
    loss = feature_evolution([(p, q, r)])
    assert loss.item() == pytest.approx(1.0, abs=1e-6)  # a mean over both samples would say 0.5
    alone = triple(live[:1], live[1:2], live[2:], requires_grad=True)
    expected = torch.autograd.grad(feature_evolution([alone]), alone)
    for gradient, single in zip(torch.autograd.grad(loss, (p, q, r)), expected, strict=True):
        torch.testing.assert_close(gradient[0], single[0])
        assert torch.equal(gradient[1], torch.zeros(2))
    assert zero_step_share([(p, q, r)]).item() == pytest.approx(0.5)


@pytest.mark.parametrize("length", [1e-3, 1e-5, 1e-7, 1e-9, 1e-20, 1e-30, 0.0])
def test_the_gradient_of_short_steps_is_bounded(length):
    p = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    readings = [x.requires_grad_() for x in (p, p + torch.tensor([[0.0, length]]), p + torch.tensor([[1.0, 0.0]]))]
    p, q, r = readings
    loss = feature_evolution([(p, q, r)])
    bound = 2 / (1e-4 * 5)  # one over the shortest step that counts, at features of length 5
    for gradient in torch.autograd.grad(loss, readings):
        assert gradient.isfinite().all() and gradient.norm() <= bound
    if length < 1e-4 * 5:
        assert loss.item() == 0


def test_coarse_readings_raise_the_threshold():
    p, q, r = triple([[1.0, 1.0]], [[1.0, 1.0 + 2**-7]], [[2.0, 1.0]])
    assert zero_step_share([(p, q, r)]).item() == 0
    assert zero_step_share([(p.bfloat16(), q.bfloat16(), r.bfloat16())]).item() == 1  # one unit in the last place


def test_features_that_died_are_left_out():
    dead = torch.zeros(3, 4, requires_grad=True)
    loss = feature_evolution([(dead, dead, dead)])
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, dead)[0].any()


@pytest.mark.parametrize(("r", "value"), [((1.0, 1.0), 1.0), ((2.0, 0.0), 0.0), ((0.0, 0.0), 2.0)])
def test_worked_directions(r, value):
    loss = feature_evolution([triple([(0.0, 0.0)], [(1.0, 0.0)], [r])])
    assert loss.item() == pytest.approx(value, abs=1e-6)


def test_mean_over_samples_sum_over_stages():
    sideways, back = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    stage = triple(*paired(sideways, back))
    assert feature_evolution([stage]).item() == pytest.approx(1.5, abs=1e-6)
    wider = tuple(F.pad(x, (0, 3)) for x in stage)
    assert feature_evolution([stage, wider]).item() == pytest.approx(3.0, abs=1e-6)  # type: ignore[list-item]


@PROPERTY
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_invariant_to_positive_scaling_of_either_step(seed, first, second):
    g = torch.Generator().manual_seed(seed)
    e, f = torch.randn(2, 4, 8, generator=g, dtype=torch.float64)
    start = torch.zeros_like(e)
    plain = feature_evolution([(start, e, e + f)])
    scaled = feature_evolution([(start, first * e, first * e + second * f)])
    alive = zero_step_share([(start, first * e, first * e + second * f)]).item() == 0
    if alive:  # a ratio of 1e6 between the steps puts the shorter one under the threshold
        torch.testing.assert_close(scaled, plain)
    assert 0 <= plain.item() <= 2


@PROPERTY
@given(st.integers(0, 2**31), st.floats(1e-12, 1e12))
def test_invariant_to_the_unit_of_the_features_and_to_the_order_of_samples_and_channels(seed, unit):
    g = torch.Generator().manual_seed(seed)
    p, q, r = torch.randn(3, 5, 4, generator=g)
    q[0] = p[0]
    loss = feature_evolution([(p, q, r)])
    samples, channels = torch.randperm(5, generator=g), torch.randperm(4, generator=g)
    for variant in (
        (unit * p, unit * q, unit * r),
        (p[samples], q[samples], r[samples]),
        (p[:, channels], q[:, channels], r[:, channels]),
        (p.repeat(2, 1), q.repeat(2, 1), r.repeat(2, 1)),
    ):
        torch.testing.assert_close(feature_evolution([variant]), loss, atol=1e-5, rtol=1e-5)


def test_equals_the_naive_cosine_where_no_step_is_zero():
    readings = torch.randn(3, 6, 5, dtype=torch.float64, requires_grad=True)
    p, q, r = readings
    naive = (1 - F.cosine_similarity(q - p, r - q)).mean()
    ours = feature_evolution([(p, q, r)])
    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(*(torch.autograd.grad(x, readings, retain_graph=True)[0] for x in (ours, naive)))


def test_gradient_is_the_derivative():
    readings = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: feature_evolution([(x[0], x[1], x[2])]), readings)
    aligned = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: feature_evolution(list(x), form="stage", pairs="all"), aligned)
    assert torch.autograd.gradcheck(lambda x: feature_evolution(list(x), form="kl"), aligned)


def test_stage_form_compares_adjoining_steps():
    corner = [torch.tensor([x]) for x in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (1.0, -1.0))]
    assert feature_evolution(corner, form="stage").item() == pytest.approx(3.0, abs=1e-6)  # 1 + 2
    # d = (1, -1), (0, -1), (0, -2): three unordered pairs
    expected = 2 * (1 - 1 / math.sqrt(2)) + 0
    assert feature_evolution(corner, form="stage", pairs="all").item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("pairs", ["adjoining", "all"])
def test_stage_form_leaves_zero_steps_out(pairs):
    same = torch.tensor([[1.0, 2.0], [1.0, 2.0]], requires_grad=True)
    last = torch.tensor([[3.0, 2.0], [1.0, 2.0]], requires_grad=True)
    middle = torch.tensor([[1.0, 3.0], [1.0, 2.0]], requires_grad=True)
    readings = [same, middle, last]
    loss = feature_evolution(readings, form="stage", pairs=pairs)
    for gradient in torch.autograd.grad(loss, readings):
        assert gradient[0].any() and torch.equal(gradient[1], torch.zeros(2))
    assert zero_step_share(readings, form="stage", pairs=pairs).item() == pytest.approx(0.5)


@pytest.mark.parametrize(("form", "pairs"), [("stage", "adjoining"), ("stage", "all"), ("kl", "adjoining")])
def test_too_few_stages_is_zero(form, pairs):
    for stages in ([], [torch.randn(2, 3)]):
        assert feature_evolution(stages, form=form, pairs=pairs).item() == 0
        assert zero_step_share(stages, form=form, pairs=pairs).item() == 0
    assert (
        feature_evolution([torch.randn(2, 3)] * 2, form="stage", pairs=pairs if form == "stage" else "all").item() == 0
    )
    assert feature_evolution([]).item() == zero_step_share([]).item() == 0


def test_kl_form_is_next_against_this():
    this, following = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]])
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert feature_evolution([this, following], form="kl").item() == pytest.approx(expected, abs=1e-6)
    assert feature_evolution([this, following, following], form="kl").item() == pytest.approx(expected, abs=1e-6)
    assert feature_evolution([this] * 4, form="kl").item() == 0


@PROPERTY
@given(st.integers(0, 2**31), st.floats(0.1, 30))
def test_kl_form_is_nonnegative(seed, scale):
    g = torch.Generator().manual_seed(seed)
    readings = list(scale * torch.randn(3, 4, 6, generator=g))
    assert feature_evolution(readings, form="kl").item() >= -1e-6


def test_two_processes_with_reduce_equal_one_with_the_whole_batch():
    p, q, r = torch.randn(3, 6, 4)
    q[:2] = p[:2]  # three quarters of the first process's samples are left out, none of the second's
    whole = feature_evolution([(p, q, r)])
    halves = [(p[:3], q[:3], r[:3]), (p[3:], q[3:], r[3:])]
    seen: list[Tensor] = []
    feature_evolution([halves[1]], reduce=lambda x: seen.append(x) or x)
    other = iter(seen)
    local = feature_evolution([halves[0]], reduce=lambda x: (x + next(other)) / 2)
    torch.testing.assert_close(local, whole)


def test_float32_inside_autocast():
    p, q, r = torch.randn(3, 4, 8).bfloat16()
    wide = (p.float(), q.float(), r.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = feature_evolution([(p, q, r)])
        others = [feature_evolution([p, q, r], form=form) for form in ("stage", "kl")]
    assert torch.equal(within, feature_evolution([wide]))
    for loss, form in zip(others, ("stage", "kl"), strict=True):
        assert torch.equal(loss, feature_evolution(list(wide), form=form))


def test_readings_are_first_middle_last():
    blocks = [torch.full((1, 1), float(i)) for i in range(9 + 3 + 2 + 1)]
    slices = [slice(0, 9), slice(9, 12), slice(12, 14), slice(14, 15)]
    read = [tuple(int(x) for x in stage) for stage in within_stage_readings(blocks, slices)]
    assert read == [(0, 4, 8), (9, 10, 11), (12, 13, 13), (14, 14, 14)]
    short = within_stage_readings([torch.randn(2, 3) for _ in range(2)], [slice(0, 2)])
    assert zero_step_share(short).item() == 1


def test_mistakes_are_errors():
    for call in (feature_evolution, zero_step_share):
        with pytest.raises(ValueError, match="form of feature_evolution"):
            call([], form="cosine")
        with pytest.raises(ValueError, match="pairs of feature_evolution"):
            call([], form="stage", pairs="some")
        with pytest.raises(ValueError, match="no effect"):
            call([], pairs="all")
