"""A cascade behind the door of `Engine`: the same answers on every runtime, and little work beside the members'."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from test_cascade import LARGE, MIDDLE, SMALL, network, same
from tiny import images

from spnet import Cascade, Engine, UserError
from spnet.errors import ImagesWarning
from spnet.inference.cascade import sureness
from spnet.inference.cascade.engine import CascadeEngine

CONFIDENCES = (0.7, 0.6)


def cascade() -> Cascade:
    return Cascade([SMALL, MIDDLE, LARGE], CONFIDENCES)


@pytest.mark.parametrize("executor", ["masked", "gathered", "onnx", "auto"])
@pytest.mark.parametrize("batch", [1, 2, 40])
def test_every_executor_gives_the_cascades_trace(executor: str, batch: int):
    x = images(batch)
    engine, eager = Engine(cascade(), executor), cascade()(x)
    assert isinstance(engine, CascadeEngine) and isinstance(engine, Engine)
    trace = engine(x)
    assert torch.equal(trace.exit_stage, eager.exit_stage) and torch.equal(trace.decisions, eager.decisions)
    assert torch.equal(trace.macs, eager.macs)
    same(trace.logits, eager.logits)
    for mine, theirs in zip(trace.router_logits, eager.router_logits, strict=True):
        same(mine, theirs)
    same(engine(x.numpy()).logits, eager.logits)


def test_branching_takes_single_images():
    x = images(1)
    same(Engine(cascade(), "branching")(x).logits, cascade()(x).logits)


def test_an_image_that_stops_at_the_first_member_opens_no_other():
    engine = Engine(Cascade([SMALL, LARGE], 0), "onnx")
    assert isinstance(engine, CascadeEngine)
    assert engine(images(1)).exit_stage.tolist() == [0]
    assert engine.engines[0]._programs.opened and not engine.engines[1]._programs.opened


def test_a_call_walks_over_no_modules(monkeypatch: pytest.MonkeyPatch):
    engine = Engine(cascade(), "onnx")
    expected = engine(images(1))

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a call walked over the network")

    for name in ("modules", "named_modules", "children", "train", "eval", "__call__"):
        monkeypatch.setattr(torch.nn.Module, name, refused)
    assert torch.equal(engine(images(1)).logits, expected.logits)


def test_auto_runs_a_static_member_as_such():
    engine = Engine(cascade())
    assert engine.choice(1) == "static+onnx+onnx"
    assert Engine(cascade(), "gathered").choice(8) == "gathered+gathered+gathered"


def test_one_confidence_for_all_members():
    x = images(20)
    assert Engine(cascade(), "masked", exit_confidence=0)(x).exit_stage.unique().tolist() == [0]
    assert Engine(cascade(), "masked", exit_confidence=1)(x).exit_stage.unique().tolist() == [2]
    assert Engine(cascade(), "masked", exit_confidence=0.7).exit_confidence == 0.7


def test_an_engine_follows_its_cascade_until_it_is_calibrated():
    model = cascade()
    engine = Engine(model, "masked")
    model.confidences = 0
    assert engine(images(9)).exit_stage.unique().tolist() == [0]


@pytest.mark.parametrize("executor", ["auto", "onnx", "gathered"])
def test_an_engine_is_pickled_and_copied(executor: str):
    engine = Engine(cascade(), executor, threads=2)
    for _ in range(2):  # before and after its first image
        for other in (pickle.loads(pickle.dumps(engine)), copy.deepcopy(engine)):
            assert type(other) is CascadeEngine and other.model is not engine.model
            same(other(images(3)).logits, engine(images(3)).logits)
    assert isinstance(engine, CascadeEngine)
    near = copy.copy(engine)
    near.engines[1]._own_shift = 7.0
    assert engine.decision_shifts == (0.0, 0.0, 0.0) != near.decision_shifts


def test_threads_get_the_answers_of_one():
    engine = Engine(cascade(), "onnx", threads=2)
    batches = [images(1 + k % 5, seed=k) for k in range(24)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(engine, batches))
    for x, trace in zip(batches, together, strict=True):
        same(trace.logits, cascade()(x).logits)


def test_what_makes_no_sense_is_refused_in_one_line():
    x = images(2)
    engine = Engine(cascade(), "masked")
    for call, says in (
        (lambda: Engine(cascade(), max_cost=0.5), "max_cost is for one network"),
        (lambda: Engine(cascade(), expected_cost=0.5), "expected_cost is for one network"),
        (lambda: Engine(cascade(), "quick"), "unknown executor 'quick'"),
        (lambda: Engine(cascade(), threads=0), "threads must be at least 1"),
        (lambda: Engine(cascade(), budget=7), "budget is a share of the static cost"),
        (lambda: Engine(cascade(), exit_confidence=-1), "a confidence is a probability"),
        (lambda: engine(x, torch.ones(9, dtype=torch.int64)), "a cascade's decisions cannot be forced"),
        (lambda: engine(images(2, (1, 4, 4))), "this network takes images of"),
        (lambda: engine(x[:0]), "there are no images to run"),
        (lambda: engine.decision_shift, "ask for decision_shifts"),
        (lambda: Engine(cascade(), budget=0.5)(x), "call engine.calibrate"),
    ):
        with pytest.raises(UserError) as error:
            call()
        assert says in str(error.value) and "\n" not in str(error.value)
    with pytest.warns(ImagesWarning):
        engine(200 * torch.rand(2, 1, 8, 8))


def test_floats_are_refused_where_members_normalise_in_other_ways():
    other = network(seed=5)
    other.mean.fill_(0.3)
    engine = Engine(Cascade([SMALL, other]), "masked")
    with pytest.raises(UserError, match="in different ways"):
        engine(images(2))
    pixels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    assert sureness(engine(pixels).logits).shape == (2,) and len(engine(pixels.numpy()).logits) == 2
