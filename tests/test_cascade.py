"""Cascades: who answers, what it costs, which members go together."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import images, lively

from spnet import Cascade, DynamicNetwork, Trace, UserError, create_model
from spnet.inference.cascade import sureness


def network(backbone: str = "resnet8", method: str = "static", seed: int = 0, **config) -> DynamicNetwork:
    """Its images are sure to various degrees."""
    net = lively(create_model(backbone, method, **{"in_channels": 1, "image_size": 8, "seed": seed, **config}))
    net.backbone.head.get_parameter("weight").data *= 12
    return net


SMALL, MIDDLE, LARGE = network(seed=1), network("resnet14", "spnet", seed=2), network("resnet20", "spnet", seed=3)
THREE = Cascade([SMALL, MIDDLE, LARGE])


def alone(net: DynamicNetwork, x: torch.Tensor) -> Trace:
    with torch.no_grad():
        return net(x, heads=False)


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 9), st.lists(st.floats(0, 1.2), min_size=2, max_size=2), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_an_image_goes_on_while_the_member_is_not_sure_and_pays_for_all(
    batch: int, confidences: list[float], seed: int
):
    x = images(batch, seed=seed)
    trace = Cascade([SMALL, MIDDLE, LARGE], confidences)(x)
    members = [alone(net, x) for net in (SMALL, MIDDLE, LARGE)]
    starts = [0, 3, 9]
    for b in range(batch):
        sure = [float(m.logits[b].double().softmax(0).max()) > c for m, c in zip(members, confidences, strict=False)]
        answered = (*sure, True).index(True)
        assert trace.exit_stage[b] == answered
        same(trace.logits[b], members[answered].logits[b])
        assert trace.macs[b] == sum(int(m.macs[b]) for m in members[: answered + 1])
        for k, (start, member) in enumerate(zip(starts, members, strict=True)):
            path = trace.decisions[b, start : start + member.decisions.shape[1]]
            assert torch.equal(path, member.decisions[b]) if k <= answered else bool((path == -1).all())
            same(trace.stage_logits[k][b], members[min(k, answered)].logits[b])


@given(st.integers(2, 9), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_a_batch_and_its_images_one_by_one_agree(batch: int, confidence: float, seed: int):
    cascade, x = Cascade([SMALL, MIDDLE, LARGE], confidence), images(batch, seed=seed)
    margins = [abs(sureness(alone(net, x).logits) - confidence).min() for net in (SMALL, MIDDLE)]
    if min(margins) < 1e-4:  # rounding may decide
        return
    together, single = cascade(x), [cascade(image) for image in x.split(1)]
    for name in ("logits", "macs", "decisions", "exit_stage"):
        same(getattr(together, name), torch.cat([getattr(trace, name) for trace in single]))
    for j, logits in enumerate(together.router_logits):
        same(logits, torch.cat([trace.router_logits[j] for trace in single]))


@pytest.mark.parametrize(("confidence", "answers"), [(0, SMALL), (1, LARGE), (1.5, LARGE)])
def test_confidence_0_is_the_first_member_and_1_the_last(confidence: float, answers: DynamicNetwork):
    x = images(20)
    trace = Cascade([SMALL, LARGE], confidence)(x)
    same(trace.logits, alone(answers, x).logits)
    expected = alone(SMALL, x).macs + (alone(LARGE, x).macs if answers is LARGE else 0)
    assert torch.equal(trace.macs, expected)


def test_later_members_run_on_the_images_that_go_on_alone(monkeypatch: pytest.MonkeyPatch):
    cascade, x = Cascade([SMALL, LARGE], 0.5), images(30)
    seen: list[int] = []
    forward = LARGE.forward
    monkeypatch.setattr(LARGE, "forward", lambda x, **how: seen.append(len(x)) or forward(x, **how))
    trace = cascade(x)
    assert seen == [int((trace.exit_stage == 1).sum())] and 0 < seen[0] < 30
    cascade.confidences = 0
    assert cascade(x).exit_stage.unique().tolist() == [0] and len(seen) == 1


def test_members_keep_their_order_and_their_own_thresholds():
    backwards = Cascade([LARGE, SMALL], 1.0)
    assert backwards.networks == (LARGE, SMALL) and backwards.static_macs == SMALL.static_macs
    assert THREE.static_macs == LARGE.static_macs and THREE.options == SMALL.options + MIDDLE.options + LARGE.options
    assert THREE.stage_lengths == (1, 1, 1, 2, 2, 2, 3, 3, 3)
    net = network("resnet14", "spnet", seed=2)
    before = Cascade([SMALL, net], 1.0)(images(8)).macs
    net.decision_shift.fill_(-64.0)
    assert (Cascade([SMALL, net], 1.0)(images(8)).macs <= before).all() and len(before.unique()) > 1


def test_a_sure_image_is_told_from_a_very_sure_one():
    """In single precision both are sure to 1, and no confidence lies between."""
    sure = torch.zeros(2, 10)
    sure[:, 0] = torch.tensor([20.0, 30.0])
    assert sure.softmax(1).max(1).values.tolist() == [1, 1]
    assert sureness(sure)[0] < sureness(sure)[1] < 1
    assert sureness(sure.bfloat16())[0] < 1


def test_uint8_images_and_a_pickled_cascade():
    pixels = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    trace = THREE(pixels)
    other = pickle.loads(pickle.dumps(THREE))
    assert torch.equal(other(pixels).logits, trace.logits) and other.confidences == (0.9, 0.9)
    assert type(pickle.loads(pickle.dumps(trace))) is Trace
    assert not THREE.training and not trace.logits.requires_grad


def renamed(*classes: str) -> DynamicNetwork:
    net = network(num_classes=3)
    net.classes = classes
    return net


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([], "at least two members, from cheap to dear; not 0"),
        ([SMALL], "at least two members, from cheap to dear; not 1"),
        ([SMALL, "cifar10"], "member 2 of a cascade must be a network of spnet, not 'cifar10'"),
        ([SMALL, network(num_classes=7)], "member 1 of the cascade has 10 classes, the last 7"),
        ([SMALL, network(in_channels=3), LARGE], "member 2 of the cascade takes images of (3, 8, 8), the last (1, 8"),
        ([network(image_size=16), SMALL], "member 1 of the cascade takes images of (1, 16, 16), the last (1, 8, 8)"),
        ([renamed("a", "b", "c"), renamed("a", "c", "b")], "member 1 of the cascade calls class 1 'b', the last 'c'"),
    ],
)
def test_members_that_do_not_go_together_are_refused(members: list, says: str):
    with pytest.raises(UserError) as error:
        Cascade(members)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("confidences", [(), (0.5,), (0.5, 0.5, 0.5), "0.9", None, (0.5, "high"), (0.5, -0.1),
                                         (0.5, float("nan")), float("inf")])  # fmt: skip
def test_confidences_that_are_none_are_refused(confidences):
    with pytest.raises(UserError, match=r"confidences of 3 members are 2|a confidence is a probability"):
        Cascade([SMALL, MIDDLE, LARGE], confidences)


def test_classes_are_known_if_any_member_knows_them():
    assert THREE.classes is None
    assert Cascade([network(num_classes=3), renamed("a", "b", "c")]).classes == ("a", "b", "c")


def test_floats_are_refused_where_members_normalise_in_other_ways():
    cascade = Cascade([SMALL, network(seed=5)])
    cascade.networks[1].mean.fill_(0.3)
    with pytest.raises(UserError, match="normalise images in different ways: give them as uint8"):
        cascade(images(2))
    assert len(cascade(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).logits) == 2
    with pytest.raises(UserError, match=r"takes images of \(B, 1x8x8\)"):
        cascade(torch.zeros(2, 3, 8, 8))
