"""Networks of torchvision and timm through onnxruntime: every path, and early exits, against the eager network."""

from typing import Any

import numpy as np
import pytest
import torch
from test_adapters import ROWS, Row, few_layers  # noqa: F401  (a fixture)
from tiny import agreeing, stirred
from torch import Tensor

import spnet
from spnet.inference.runtimes.onnx.agreement import clear_samples, disagreement, own_decisions_disagreement, probe
from spnet.inference.runtimes.onnx.executor import OnnxExecutor, StaticExecutor
from spnet.inference.runtimes.onnx.sessions import chunk_size

MOBILE = "torchvision:mobilenet_v3_large"


LARGE = ("torchvision:vit_b_16", "torchvision:resnet50", "timm:resnet50", "torchvision:convnext_tiny")
"""Each has a smaller one of its family beside it."""


def networks(*quick: str, without: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """All of them; those that are not `quick` are slow."""
    kept = [row for row in ROWS if row.name not in without]
    rows = [pytest.param(row, marks=() if row.name in quick else pytest.mark.slow) for row in kept]
    return pytest.mark.parametrize("row", rows, ids=str)


def made(row: Row, method: str, **settings: Any) -> spnet.DynamicNetwork:
    """With routers and stage heads that disagree about images."""
    net = spnet.make_dynamic(row.build(), method, example=row.example, seed=0, **settings)
    return stirred(net, net.router, net.stage_heads)


def contrasts(net: spnet.DynamicNetwork) -> tuple[Tensor, Tensor]:
    """Images from faint to glaring, so that routers and heads tell them apart; and a path for each."""
    images, decisions = probe(net, paths=20)
    return images * torch.linspace(0.2, 4, len(images))[:, None, None, None], decisions


@pytest.mark.usefixtures("few_layers")
@networks(MOBILE, "torchvision:resnet18", "timm:deit_tiny_patch16_224")
@torch.no_grad()
def test_all_run_all_skipped_random_paths_and_own_decisions(row: Row):
    net = made(row, "dynamic")
    run = OnnxExecutor(net).arrays
    images, decisions = contrasts(net)
    assert disagreement(net, images, decisions, run) is None
    assert own_decisions_disagreement(net, images, run)[0] is None
    for k in range(len(images)):
        one = slice(k, k + 1)
        assert disagreement(net, images[one], decisions[one], run) is None
    for k in range(4):
        assert own_decisions_disagreement(net, images[k : k + 1], run)[0] is None
    assert agreeing(StaticExecutor(net)(images).logits, net.backbone(images))
    engine = spnet.Engine(net)
    assert engine.choice(1) == engine.choice(len(images)) == "onnx"
    always = [i for i, gated in enumerate(net.gated) if not gated]
    assert (engine(images).decisions[:, always] == torch.tensor(net.options)[always] - 1).all()


@networks(MOBILE, without=LARGE)
@torch.no_grad()
def test_images_leave_early_at_stages_that_were_chosen(row: Row):
    """About half at the first of two heads; what is forced runs to the end."""
    stages = spnet.make_dynamic(row.build(), "static", example=row.example).backbone.stages.names
    net = made(row, "spnet", exits=stages[:2])
    images, decisions = contrasts(net)
    sure = net(images).stage_logits[0].softmax(1).amax(1).sort().values[6:16]
    widest = int(sure.diff().argmax())
    confidence = float(sure[widest : widest + 2].mean())
    expected = net(images, exit_confidence=confidence)
    clear = torch.from_numpy(clear_samples(net, expected, confidence))
    assert clear.sum() > 18 and 5 < int((expected.exit_stage == 0).sum()) < 17
    engine = spnet.Engine(net, exit_confidence=confidence)
    assert engine.choice(1) == engine.choice(len(images)) == "onnx"
    for size in (1, len(images)):
        traces = [engine(part) for part in images.split(size)]
        for name in ("decisions", "exit_stage", "macs"):
            found = torch.cat([getattr(trace, name) for trace in traces])
            assert torch.equal(found[clear], getattr(expected, name)[clear]), name
        logits = torch.cat([trace.logits for trace in traces])
        assert agreeing(logits[clear], expected.logits[clear])
    forced = engine(images, decisions)
    assert torch.equal(forced.decisions, decisions) and (forced.exit_stage == len(stages) - 1).all()
    assert agreeing(forced.logits, net.forward_path(images, decisions, heads=False).logits)


@pytest.mark.parametrize(
    ("batch", "size", "workers", "chunk"), [(64, 32, 1, 16), (20, 32, 2, 10), (64, 224, 2, 8), (3, 1024, 1, 1)]
)
def test_workers_take_fewer_of_large_images_at_a_time(batch: int, size: int, workers: int, chunk: int):
    assert chunk_size(np.empty((batch, 3, size, size), np.float32), workers) == chunk
