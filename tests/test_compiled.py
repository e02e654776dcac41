"""Blocks compiled for training: one compilation a shape, the same step, and nothing left of it in a trained network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SHAPE, agreeing, images

from spnet import create_model, load
from spnet.inference.runtimes.compiled import compiled
from spnet.inference.runtimes.masked import Dense
from spnet.network.sampling import AllRun
from spnet.training.fit import Outcome

Train = Callable[..., tuple[Path, Outcome]]
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own look


class Counting:
    """A backend that compiles nothing and counts what it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def counting() -> Counting:
    torch._dynamo.reset()
    return Counting()


def shapes(depth: int, counting: Counting, **settings: Any) -> int:
    net = create_model(f"resnet{depth}", "dynamic", in_channels=1, image_size=8, **settings)
    net.dense = compiled(counting)  # type: ignore[arg-type]
    before = counting.graphs
    net(images(4), sampler=AllRun())
    return counting.graphs - before


def test_blocks_of_one_shape_share_a_compilation(counting: Counting):
    """Three plain shapes and two transitions; the first blocks of ResNet-8 have three of them."""
    assert shapes(8, counting) == 3
    assert shapes(26, counting) == 2
    assert shapes(26, counting, targets=(1,) * 12) == 5, "blocks without a router are compiled too"


def test_a_compiled_training_is_the_training(train: Train):
    """`aot_eager` takes the way of a real compiler, forward and backward, up to the code it would write."""
    settings = {"epochs": 2, "static_share": 0.5}
    plain, _ = train("spnet", out="plain", **settings)
    folder, outcome = train("spnet", out="compiled", compile="aot_eager", **settings)
    assert outcome.net.dense != Dense()
    ours, theirs = load(folder), load(plain)
    assert ours.dense == Dense(), "a network that is loaded computes as it always did"
    for name, value in theirs.state_dict().items():
        assert agreeing(ours.state_dict()[name].double(), value.double(), 1e-3), name


def test_the_teacher_does_not_compute_with_the_students_weights(counting: Counting):
    """The compiled function is shared by the copy, its weights are not."""
    from spnet.methods.spnet import AuxiliaryModule

    net = create_model("resnet8", "static", in_channels=SHAPE[0], image_size=SHAPE[1])
    net.dense = compiled(counting)  # type: ignore[arg-type]
    auxiliary = AuxiliaryModule(net, 0.5)
    before = auxiliary.net(images(4)).logits
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    net(images(4))
    assert agreeing(auxiliary.net(images(4)).logits, before, 1e-6)


def test_how_a_step_is_computed_does_not_rename_a_run():
    from spnet.runs.config import RunConfig

    config = RunConfig("spnet", settings={"epochs": 3})
    assert config.with_settings(compile="inductor", capture=True).hash == config.hash
    assert config.with_settings(compile="inductor").to_json()["settings"]["compile"] == "inductor"
