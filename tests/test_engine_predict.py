"""`Engine.predict`, `warm_up` and `memory`: answers without a trace, nothing left to open, and what that holds."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from test_cascade import LARGE, MIDDLE, SMALL
from tiny import SHAPE, images, in_a_forked_child, lively

from spnet import Cascade, DynamicNetwork, Engine, UserError, create_model
from spnet.errors import ImagesWarning
from spnet.inference import memory
from spnet.inference.cascade.engine import CascadeEngine
from spnet.network.trace import LazyTrace, Trace


def network(**settings: Any) -> DynamicNetwork:
    return lively(create_model("resnet20", "spnet", in_channels=1, image_size=8, seed=0, **settings))


def model(kind: str) -> Any:
    return Cascade([SMALL, MIDDLE, LARGE], (0.7, 0.6)) if kind == "cascade" else network()


def expected(engine: Engine, x: Any) -> np.ndarray:
    return torch.as_tensor(engine(x).logits).float().softmax(1).numpy()


@pytest.mark.parametrize("kind", ["network", "cascade"])
@pytest.mark.parametrize("executor", ["masked", "gathered", "onnx", "auto"])
@pytest.mark.parametrize("batch", [1, 40])
def test_predict_says_what_a_trace_says(kind: str, executor: str, batch: int):
    engine, x = Engine(model(kind), executor), images(batch)
    for given in (x, x.numpy(), x.double()):
        classes, probabilities = engine.predict(given)
        assert type(classes) is type(probabilities) is np.ndarray and classes.dtype == np.int64
        np.testing.assert_allclose(probabilities, expected(engine, given), atol=1e-5)
        assert classes.tolist() == engine(given).logits.argmax(1).tolist()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_a_worked_softmax():
    """Probabilities of logits 0, log 2, log 5 are 1/8, 2/8, 5/8; far-off logits neither overflow nor lose them."""
    engine = Engine(network(), "masked")
    for far in (0.0, 1e4, -1e4):
        logits = np.log([[1.0, 2.0, 5.0]]) + far
        engine._logits = lambda checked, shift=None, logits=logits: logits  # type: ignore[method-assign]
        classes, probabilities = engine.predict(images(1))
        np.testing.assert_allclose(probabilities, [[0.125, 0.25, 0.625]], atol=1e-9)
        assert classes.tolist() == [2]


@pytest.mark.parametrize("kind", ["network", "cascade"])
def test_predict_makes_no_trace(kind: str, monkeypatch: pytest.MonkeyPatch):
    engine = Engine(model(kind), "onnx").warm_up()

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a trace was made")

    monkeypatch.setattr(LazyTrace, "__init__", refused)
    monkeypatch.setattr(Trace, "__init__", refused)
    engine.predict(images(1))
    with pytest.raises(AssertionError, match="a trace was made"):
        engine(images(1))


def test_predict_follows_the_engines_own_rules():
    net, x = network(), images(40)
    engine = Engine(net, "gathered")
    engine.calibrate(torch.randint(0, 256, (100, *SHAPE), dtype=torch.uint8), 0.5)
    np.testing.assert_allclose(engine.predict(x)[1], expected(engine, x), atol=1e-5)
    assert np.abs(engine.predict(x)[1] - Engine(net, "gathered").predict(x)[1]).max() > 1e-3
    for exit_confidence, max_cost in ((0.0, None), (None, 0.6)):
        for executor in ("gathered", "onnx"):
            ruled = Engine(net, executor, exit_confidence=exit_confidence, max_cost=max_cost)
            np.testing.assert_allclose(ruled.predict(x)[1], expected(ruled, x), atol=1e-5)
    pending = Engine(net, "gathered", budget=0.5)
    for call in (lambda: pending.predict(x), pending.warm_up):
        with pytest.raises(UserError, match="was not calibrated"):
            call()


def test_predict_refuses_and_warns_as_a_call_does():
    engine = Engine(network(), "masked")
    for wrong, words in ((None, "images are a tensor"), (images(0), "no images"), (images(1) * torch.nan, "NaN")):
        with pytest.raises(UserError, match=words):
            engine.predict(wrong)  # type: ignore[arg-type]
    with pytest.warns(ImagesWarning, match="reach 255") as caught:
        engine.predict(torch.full((1, *SHAPE), 255.0))
    assert caught[0].filename == __file__  # it points at whoever called


@pytest.mark.parametrize("kind", ["network", "cascade"])
def test_a_warm_engine_opens_nothing_more(kind: str, monkeypatch: pytest.MonkeyPatch):
    engine = Engine(model(kind), "onnx", threads=2)
    assert engine.warm_up() is engine.warm_up(4) is engine

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a session was opened")

    monkeypatch.setattr("spnet.inference.runtimes.onnx.executor.open_session", refused)
    for batch in (1, 4, 40):
        engine.predict(images(batch))
    with pytest.raises(AssertionError, match="a session was opened"):
        Engine(model(kind), "onnx").predict(images(1))
    for wrong in (0, 1.5, True, "2"):
        with pytest.raises(UserError, match="batch_size must be"):
            engine.warm_up(wrong)  # type: ignore[arg-type]


def test_warming_up_reaches_members_that_images_would_not():
    engine = Engine(Cascade([SMALL, LARGE], 0), "onnx")
    assert isinstance(engine, CascadeEngine)
    engine.warm_up(3)
    assert all(member._programs.growth._grown for member in engine.engines)
    assert engine.predict(images(2))[0].shape == (2,)


def test_memory_counts_weights_once_and_what_first_calls_took(monkeypatch: pytest.MonkeyPatch):
    """The process grows by 1000 bytes at each reading: first calls are measured, later ones read nothing."""
    readings = iter(range(0, 10_000, 1000))
    monkeypatch.setattr(memory, "resident", lambda: next(readings))
    net = network()
    engine = Engine(net, "gathered")
    assert engine.memory.weights == sum(t.nbytes for t in [*net.parameters(), *net.buffers()])
    assert engine.memory.opened == 0
    for batch, held in ((1, 1000), (1, 1000), (3, 2000), (5, 2000)):
        engine.predict(images(batch))
        assert engine.memory.opened == held
    engine(images(3))
    assert engine.memory.opened == 2000 and pickle.loads(pickle.dumps(engine)).memory.opened == 0
    monkeypatch.setattr(memory, "resident", lambda: None)
    assert Engine(net, "gathered").warm_up().memory.opened is None


def test_memory_of_a_cascade_is_that_of_its_members():
    engine = Engine(Cascade([SMALL, LARGE, LARGE], (0.7, 0.6)), "gathered").warm_up()
    assert isinstance(engine, CascadeEngine) and engine.memory.opened is not None
    assert engine.memory.weights == memory.weight_bytes(SMALL) + memory.weight_bytes(LARGE)  # one of them stands twice
    assert engine.memory.opened == sum(member.memory.opened or 0 for member in engine.engines)


def test_memory_sees_what_the_process_holds():
    before = memory.resident()
    if before is None:
        pytest.skip("this system does not say")
    held = np.ones(50_000_000, np.uint8)
    grown = memory.resident()
    assert grown is not None and 45e6 < grown - before < 60e6
    del held
    after = memory.resident()
    assert after is not None and after - before < 10e6


@pytest.mark.parametrize("kind", ["network", "cascade"])
def test_an_engine_that_predicted_is_pickled_copied_and_shared_by_threads(kind: str):
    engine, x = Engine(model(kind), "onnx", threads=2), images(1)
    found = engine.predict(x)[1]
    for other in (pickle.loads(pickle.dumps(engine)), copy.deepcopy(engine), copy.copy(engine)):
        np.testing.assert_array_equal(other.predict(x)[1], found)
    batches = [images(1 + k % 3, seed=k) for k in range(16)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(engine.predict, batches))
    for batch, (classes, probabilities) in zip(batches, together, strict=True):
        np.testing.assert_allclose(probabilities, expected(engine, batch), atol=1e-5)
        assert classes.tolist() == probabilities.argmax(1).tolist()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_predicts():
    engine = Engine(network(), "onnx", threads=2).warm_up().warm_up(40)
    found = in_a_forked_child(lambda: [engine.predict(images(count))[1] for count in (40, 1)])
    for probabilities, count in zip(found, (40, 1), strict=True):
        np.testing.assert_array_equal(probabilities, engine.predict(images(count))[1])
