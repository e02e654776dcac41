"""The engine as a part of a service: what a call costs in work, threads, forks, copies, thresholds of its own."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SHAPE, images, in_a_forked_child, lively

from spnet import DynamicNetwork, Engine, UserError, create_model
from spnet.errors import ImagesWarning
from spnet.network.trace import Trace


def network(**settings: Any) -> DynamicNetwork:
    return lively(create_model("resnet20", "spnet", in_channels=1, image_size=8, seed=0, **settings))


def pixels(count: int = 200) -> torch.Tensor:
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def mean_cost(engine: Engine) -> float:
    return engine(pixels()).macs.double().mean().item() / engine.model.static_macs


def test_an_onnx_call_walks_over_no_modules(monkeypatch: pytest.MonkeyPatch):
    """Whatever the depth of the network: a walk costs more than a small network."""
    engine = Engine(network(), "onnx")
    forced = torch.ones(9, dtype=torch.int64)
    expected, full = engine(images(1)), engine(images(1), forced)

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a call walked over the network")

    for name in ("modules", "named_modules", "children", "train", "eval", "__call__"):
        monkeypatch.setattr(torch.nn.Module, name, refused)
    assert torch.equal(engine(images(1)).logits, expected.logits)
    assert torch.equal(engine(images(1), forced).logits, full.logits)


def test_a_trace_is_filled_when_asked_for_and_plain_when_pickled():
    net = network()
    lazy = Engine(net, "onnx")(images(5))
    assert isinstance(lazy, Trace) and "macs" not in vars(lazy)
    with torch.no_grad():
        eager = net(images(5), heads=False)
    assert torch.equal(lazy.macs, eager.macs) and "macs" in vars(lazy)
    assert torch.equal(lazy.exit_stage, eager.exit_stage) and lazy.block_features == ()
    for other in (pickle.loads(pickle.dumps(lazy)), copy.deepcopy(lazy)):
        assert type(other) is Trace and torch.equal(other.decisions, eager.decisions)
    with pytest.raises(AttributeError, match="no field 'colour'"):
        _ = lazy.colour  # type: ignore[attr-defined]


@pytest.mark.parametrize("executor", ["auto", "gathered", "onnx"])
def test_each_engine_keeps_its_own_threshold(executor: str):
    net = network()
    before = float(net.decision_shift)
    low, high, follows = (Engine(net, executor) for _ in range(3))
    low.calibrate(pixels(), 0.5)
    high.calibrate(pixels(), 0.9)
    assert mean_cost(low) == pytest.approx(0.5, rel=0.02) and low.expected_cost == pytest.approx(0.5, rel=0.02)
    assert Engine(net, "gathered").decision_shift == before == float(net.decision_shift)
    high.expected_cost = None  # so that `auto` does not take the static network
    assert mean_cost(high) == pytest.approx(0.9, rel=0.02)
    net.decision_shift.fill_(-64.0)  # an engine that was not calibrated follows its network
    assert follows.decision_shift == -64.0 and mean_cost(follows) < mean_cost(low)


@pytest.mark.parametrize("executor", ["gathered", "onnx"])
def test_eight_threads_get_the_answers_of_one(executor: str):
    engine = Engine(network(), executor, threads=2)
    batches = [images(1 + k % 5, seed=k) for k in range(32)]
    single = Engine(engine.model, executor)
    alone = [single(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(engine, batches))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.decisions, other.decisions)
        torch.testing.assert_close(one.logits, other.logits)


@pytest.mark.parametrize("executor", ["auto", "branching", "onnx"])
def test_an_engine_is_pickled_and_copied_before_and_after_its_first_image(executor: str):
    engine = Engine(network(), executor, threads=2)
    for _ in range(2):
        for other in (pickle.loads(pickle.dumps(engine)), copy.deepcopy(engine)):
            torch.testing.assert_close(other(images(1)).logits, engine(images(1)).logits)
            assert other.model is not engine.model
    engine.calibrate(pixels(), 0.6)
    assert copy.copy(engine).decision_shift == engine.decision_shift


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_answers():
    engine = Engine(network(), "onnx", threads=2)
    many, one = engine(images(40)).logits.numpy(), engine(images(1)).logits.numpy()
    found = in_a_forked_child(lambda: [engine(images(count)).logits.numpy() for count in (40, 1)])
    np.testing.assert_array_equal(found[0], many)
    np.testing.assert_array_equal(found[1], one)
    np.testing.assert_array_equal(engine(images(40)).logits.numpy(), many)  # and the parent goes on


def test_torchs_threads_stay_as_they_are():
    before = torch.get_num_threads()
    for executor in ("masked", "gathered", "onnx"):
        engine = Engine(network(), executor, threads=before + 1)
        engine(images(3))
        assert engine.threads == before + 1 and torch.get_num_threads() == before


@pytest.mark.parametrize("executor", ["masked", "onnx"])
def test_numpy_images_are_taken(executor: str):
    engine = Engine(network(), executor)
    assert torch.equal(engine(images(2).numpy()).logits, engine(images(2)).logits)
    assert torch.equal(engine(pixels(2).numpy()).logits, engine(pixels(2)).logits)


@pytest.mark.parametrize("wrong", ["cifar10", None, 3, [[1.0]]])
def test_what_is_no_network_or_no_image_is_refused_in_one_line(wrong: Any):
    with pytest.raises(UserError, match=r"Engine takes a network, such as spnet\.load"):
        Engine(wrong)
    with pytest.raises(UserError, match="images are a tensor"):
        Engine(network())(wrong)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_infinite_values_are_refused_whatever_stands_beside_them(value: float):
    x = images(2)
    x[0, 0, 0, :4] = torch.tensor([value, float("inf"), -float("inf"), 3e38])
    for executor in ("masked", "onnx"):
        with pytest.raises(UserError, match="NaN or infinite"):
            Engine(network(), executor)(x)


@pytest.mark.parametrize("executor", ["masked", "onnx"])
@pytest.mark.parametrize(
    "wrong", [torch.zeros(3, *SHAPE, dtype=torch.int64), torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8)]
)
def test_images_of_other_types_and_shapes(executor: str, wrong: torch.Tensor):
    with pytest.raises(UserError, match="images"):
        Engine(network(), executor)(wrong)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_taken_and_gradients_left_behind(kind: torch.dtype):
    engine = Engine(network(), "onnx")
    x = images(3).to(kind)
    expected = engine(x.float())
    torch.testing.assert_close(engine(x).logits, expected.logits)
    torch.testing.assert_close(engine(x.float().requires_grad_()).logits, expected.logits)


def test_floats_that_look_like_bytes_are_said():
    engine = Engine(network(), "masked")
    with pytest.warns(ImagesWarning, match="reach 255: give bytes as uint8"):
        engine(torch.full((1, *SHAPE), 255.0))


def test_an_onnx_session_normalises_as_the_network_does():
    net = network()
    net.mean.fill_(0.4)
    net.std.fill_(0.21)
    program: Any = Engine(net, "onnx")._programs["onnx"]
    assert np.array_equal(program._pixels(pixels(3)), net.prepare(pixels(3)).numpy())


@pytest.mark.parametrize(
    "settings",
    [
        {"budget": "a"},
        {"budget": float("nan")},
        {"expected_cost": "half"},
        {"max_cost": "a"},
        {"exit_confidence": "sure"},
        {"threads": "2"},
        {"threads": 1.5},
        {"threads": True},
        {"executor": 3},
    ],
    ids=str,
)
def test_settings_of_the_wrong_type_are_refused_in_one_line(settings: dict[str, Any]):
    name, value = next(iter(settings.items()))
    with pytest.raises(UserError) as caught:
        Engine(network(), **settings)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(value, int) or repr(value) in str(caught.value)


@pytest.mark.parametrize("executor", ["onnx", "branching", "gathered", "masked"])
@pytest.mark.parametrize("force", ["x", [[1, 2], [3]], object(), torch.ones(9), torch.ones(9, device="meta").long()])
def test_decisions_that_are_no_numbers_are_refused_in_one_line(executor: str, force: Any):
    with pytest.raises(UserError, match="decisions") as caught:
        Engine(network(), executor)(images(1), force)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("executor", ["onnx", "gathered"])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [(torch.zeros(1, *SHAPE, device="meta"), "meta device"), (torch.zeros(1, *SHAPE).to_sparse(), "to_dense")],
)
def test_tensors_without_values_in_memory_are_refused(executor: str, wrong: torch.Tensor, words: str):
    with pytest.raises(UserError, match=words):
        Engine(network(), executor)(wrong)


@pytest.mark.parametrize("budget_ms", ["fast", [3.0], None, -1.0, True])
def test_times_that_are_none_are_refused(budget_ms: Any):
    with pytest.raises(UserError, match="budget"):
        Engine(network(), "branching").calibrate(pixels(), budget_ms=budget_ms)
