"""Cascades whose first members look at smaller images."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import lively

import spnet
from spnet.errors import UserError
from spnet.network.resized import taking

SMALL = lively(spnet.create_model("resnet8", "static", in_channels=1, image_size=8, seed=1)).eval()
LARGE = lively(spnet.create_model("resnet8", "dynamic", in_channels=1, image_size=16, seed=2)).eval()
IMAGES = torch.randint(0, 256, (64, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def shrunk(images: torch.Tensor) -> torch.Tensor:
    return F.interpolate((images / 255 - SMALL.mean) / SMALL.std, (8, 8), mode="bilinear", antialias=True)


def test_a_network_looks_at_larger_images_smaller() -> None:
    net = taking(SMALL, (1, 16, 16))
    assert net.input_shape == (1, 16, 16) and SMALL.input_shape == (1, 8, 8)
    assert net.static_macs == SMALL.static_macs
    assert torch.equal(net(IMAGES).logits, SMALL(shrunk(IMAGES)).logits)
    assert {id(p) for p in net.parameters()} == {id(p) for p in SMALL.parameters()}
    assert taking(SMALL, (1, 8, 8)) is SMALL


@pytest.mark.parametrize("shape", [(1, 4, 8), (3, 16, 16)])
def test_what_cannot_be_looked_at_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="cannot look at images of"):
        taking(SMALL, shape)


def test_a_threshold_is_shared_with_the_network_it_belongs_to() -> None:
    own = spnet.create_model("resnet8", "dynamic", in_channels=1, image_size=8, seed=4).eval()
    net = taking(own, (1, 16, 16))
    net.decision_shift.fill_(0.25)
    assert float(own.decision_shift) == 0.25


@pytest.mark.parametrize("executor", ["masked", "gathered", "onnx"])
def test_members_of_two_sizes(executor: str) -> None:
    with torch.no_grad():
        first, every = SMALL(shrunk(IMAGES)), LARGE(IMAGES)
    sure = first.logits.softmax(1).max(1).values
    half = float(sure.sort().values[31:33].mean())
    cascade = spnet.Cascade([SMALL, LARGE], confidences=half)
    assert cascade.input_shape == (1, 16, 16)
    engine = spnet.Engine(cascade, executor)
    trace = engine(IMAGES)
    answered = trace.exit_stage == 0
    assert int(answered.sum()) == 32
    assert torch.equal(answered, sure > half)
    torch.testing.assert_close(trace.logits[answered], first.logits[answered], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trace.logits[~answered], every.logits[~answered], rtol=1e-4, atol=1e-5)
    assert torch.equal(trace.macs[~answered], every.macs[~answered] + SMALL.static_macs)
    single = engine(IMAGES[:1])
    torch.testing.assert_close(single.logits, trace.logits[:1], rtol=1e-4, atol=1e-5)


def test_it_is_calibrated_and_exported_as_any_other(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    cascade = spnet.Cascade([SMALL, LARGE])
    engine = spnet.Engine(cascade, "gathered")
    reached = engine.calibrate(IMAGES, budget=0.8)
    assert reached == pytest.approx(0.8, rel=0.02)
    engine.settle()
    found = spnet.export(cascade, tmp_path / "pair.onnx")  # compared with the members before it is kept
    assert len(found.members) == 2 and found.error < 1e-3
    with pytest.raises(UserError, match="are of one network"):
        spnet.export(cascade, tmp_path / "more", stages=True)  # type: ignore[call-overload]
    session = onnxruntime.InferenceSession(str(tmp_path / "pair.onnx"), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": (IMAGES[:1] / 255).numpy()})[0]
    np.testing.assert_allclose(logits, engine(IMAGES[:1]).logits.numpy(), rtol=1e-3, atol=1e-4)
