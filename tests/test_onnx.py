"""The onnx executor: every output against `masked`, whatever the method, the block rule, the batch and the path."""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.resnet import BasicBlock, ResNet
from tiny import lively, stirred
from torch import Tensor, nn

from spnet import DynamicNetwork, Engine, UserError, create_model, data, make_dynamic
from spnet.inference.runtimes.onnx import executor as onnx_executor
from spnet.inference.runtimes.onnx.agreement import clear_samples, disagreement, probe
from spnet.inference.runtimes.onnx.blocked import BLOCKED, blocked
from spnet.inference.runtimes.onnx.executor import OnnxExecutor, StaticExecutor
from spnet.inference.runtimes.onnx.library import open_session
from spnet.inference.runtimes.onnx.network import check_form, dynamic_model, path_model

METHODS = [
    ("dynamic", {}),
    ("dynamic", {"lookahead": 2, "router_norm": False}),
    ("dynamic", {"targets": (0.5, 1, 0.5), "lookahead": 6}),
    ("dynamic", {"skip_rule": "plain"}),
    ("dynamic", {"skip_rule": "own-projection"}),
    ("dynamic", {"shortcut": "avgpool"}),
    ("dynamic", {"shortcut": "projection"}),
    ("dynamic", {"shortcut": "projection", "skip_rule": "plain"}),
    ("spnet", {"evolution_form": "stage"}),
    ("static", {}),
    ("skipnet", {}),
    ("skipnet", {"gate": "ff1"}),
    ("skipnet", {"gate": "ff2"}),
    ("blockdrop", {}),
    ("codinet", {}),
    ("rdi-net", {}),
    ("rdi-net", {"handed_on": "features"}),
]
IDS = [f"{name} {' '.join(f'{k}={v}' for k, v in config.items())}".strip() for name, config in METHODS]


@cache
def network(name: str = "dynamic", frozen: tuple = (), size: int = 8) -> DynamicNetwork:
    """A resnet8 whose routers disagree about images and whose batch norms have seen something."""
    net = create_model("resnet8", name, image_size=size, seed=0, **dict(frozen))
    return stirred(net, net.router)


@cache
def executor(name: str = "dynamic", frozen: tuple = (), threads: int = 1, layout: str = "blocked") -> OnnxExecutor:
    return OnnxExecutor(network(name, frozen), threads, layout=layout)


def images(count: int, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def real_images(count: int) -> Tensor:
    """Handwritten digits as bytes, grey in three channels."""
    return data.load("digits").test.images[:count].expand(-1, 3, -1, -1)


def assert_logits_alike(found: Tensor, expected: Tensor) -> None:
    error = (found - expected).abs().amax(1) / expected.abs().amax(1)
    assert error.max() <= 1e-4


@torch.no_grad()
def assert_agrees(run: OnnxExecutor, x: Tensor, force: Tensor | None = None) -> None:
    expected = run.net(x, heads=False) if force is None else run.net.forward_path(x, force, heads=False)
    found = run(x, force)
    clear = (
        torch.from_numpy(clear_samples(run.net, expected)) if force is None else torch.ones(len(x), dtype=torch.bool)
    )
    assert torch.equal(found.decisions[clear], expected.decisions[clear])
    assert torch.equal(found.macs[clear], expected.macs[clear])
    assert_logits_alike(found.logits[clear], expected.logits[clear])
    assert len(found.router_logits) == len(expected.router_logits)
    for ours, theirs in zip(found.router_logits, expected.router_logits, strict=True):
        torch.testing.assert_close(ours[clear], theirs[clear], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("name", "config"), METHODS, ids=IDS)
def test_every_method_agrees_with_masked(name: str, config: dict):
    run = executor(name, tuple(config.items()))
    for count in (1, 2, 33):
        assert_agrees(run, images(count))
    for count in (1, 64):
        assert_agrees(run, real_images(count))
    _, decisions = probe(run.net, paths=31)  # all run, all skip, random
    assert_agrees(run, images(33), decisions)
    for k in range(4):
        assert_agrees(run, images(1), decisions[k])


@pytest.mark.parametrize("layout", ["blocked", "plain"])
@pytest.mark.parametrize("threads", [1, 2])
def test_64_images_over_workers_in_either_layout(layout: str, threads: int):
    run = executor(threads=threads, layout=layout)
    assert_agrees(run, images(64))
    assert_agrees(run, images(65), probe(run.net, paths=63)[1])
    assert_agrees(run, images(1))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=9), st.integers(0, 99))
def test_any_paths_of_three_option_blocks(paths: list[list[int]], seed: int):
    assert_agrees(executor("rdi-net"), images(len(paths), seed=seed), torch.tensor(paths))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=1, max_size=9), st.integers(0, 99))
def test_any_paths_of_two_option_blocks(paths: list[list[int]], seed: int):
    assert_agrees(executor(), images(len(paths), seed=seed), torch.tensor(paths))


def test_images_as_bytes_and_of_odd_size():
    net = network(size=9)
    run = OnnxExecutor(net)
    pixels = (images(5, 9) * 60 + 128).clamp(0, 255).to(torch.uint8)
    assert_logits_alike(run(pixels).logits, net(pixels).logits.detach())


@pytest.mark.parametrize("name", ["dynamic", "rdi-net"])
def test_the_calibrated_threshold_is_read_at_every_call(name: str):
    run = OnnxExecutor(network(name))
    kept = run.net.decision_shift.clone()
    costs = []
    try:
        for shift in (-50.0, 0.0, 50.0):
            run.net.decision_shift.fill_(shift)
            assert_agrees_quietly(run)
            costs.append(run(images(16)).macs.float().mean().item())
    finally:
        run.net.decision_shift.copy_(kept)
    assert costs[0] < costs[1] < costs[2]


@torch.no_grad()
def assert_agrees_quietly(run: OnnxExecutor) -> None:
    expected = run.net(images(16), heads=False)
    assert torch.equal(run(images(16)).decisions, expected.decisions)


def test_the_blocked_layout_leaves_no_reordering_between_blocks():
    plain = dynamic_model(network(), "batch", for_blocked=True)
    fast = blocked(plain)
    kinds = [node.op_type for node in fast.graph.node if node.domain == BLOCKED]
    if "Conv" not in kinds:
        pytest.skip("onnxruntime has no blocked layout on this processor")
    assert "ReorderInput" not in kinds
    assert "ReorderOutput" not in kinds and "GlobalAveragePool" in kinds  # pooled features need none
    assert not any(node.domain == BLOCKED for node in plain.graph.node)


@pytest.mark.parametrize("form", ["single", "batch"])
def test_channels_that_do_not_fill_the_processors_blocks_are_kept_blocked_too(form: Any):
    """12 and 20 channels against blocks of 8 or 16; blocks of one option beside such of two."""
    shape: dict[str, Any] = {
        "block": BasicBlock,
        "layers": (2, 2, 1, 1),
        "channels": (12, 20, 24, 32),
        "num_classes": 5,
    }
    example = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net = lively(make_dynamic(ResNet(**shape), "dynamic", example=example, ignore="layer3", seed=0))
    fast = blocked(dynamic_model(net, form, for_blocked=True))
    inner = (a.g for node in fast.graph.node for a in node.attribute if a.HasField("g"))
    nodes = [node for g in (fast.graph, *inner) for node in g.node]
    if not any(node.domain == BLOCKED for node in nodes):
        pytest.skip("onnxruntime has no blocked layout on this processor")
    assert not [node.name for node in nodes if node.op_type == "ReorderInput"]
    run = OnnxExecutor(net)
    for decisions in (None, torch.zeros(6, dtype=torch.long), torch.tensor([1, 0, 0, 1, 1, 1])):
        forced = None if decisions is None else decisions.maximum(net.cheapest_path)
        for images in (example, example[:1]):
            expected, found = Engine(net, "masked")(images, forced), run(images, forced)
            assert torch.equal(found.decisions, expected.decisions)
            torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)


def test_a_blocked_graph_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch):
    net = network()
    other = create_model("resnet8", "dynamic", image_size=8, seed=5).eval()
    monkeypatch.setattr(onnx_executor, "blocked", lambda model: dynamic_model(other, "batch"))
    assert_agrees(OnnxExecutor(net), images(3))
    monkeypatch.setattr(onnx_executor, "blocked", lambda model: 1 / 0)
    assert_agrees(OnnxExecutor(net), images(3))


def test_the_referee_sees_a_disobedient_and_a_wrong_graph():
    net = network()
    x, decisions = probe(net, paths=5)
    right = OnnxExecutor(net).arrays
    assert disagreement(net, x, decisions, right) is None
    assert "forced" in str(disagreement(net, x, decisions, lambda pixels, bias: right(pixels, None)))
    scaled: Callable = lambda pixels, bias: [right(pixels, bias)[0] * 1.001, right(pixels, bias)[1]]  # noqa: E731
    assert "logits differ" in str(disagreement(net, x, decisions, scaled))
    broken: Callable = lambda pixels, bias: [right(pixels, bias)[0] * np.nan, right(pixels, bias)[1]]  # noqa: E731
    assert "logits differ" in str(disagreement(net, x, decisions, broken))


def test_skipped_blocks_are_not_computed():
    """NaN weights in a block poison every image that runs it, and no other."""
    net = create_model("resnet8", "dynamic", image_size=8, seed=0).eval()
    net.blocks[1].residual2[0].weight.data.fill_(float("nan"))  # type: ignore[attr-defined]
    for form in ("single", "batch"):
        session = open_session(dynamic_model(net, form).SerializeToString())
        for decisions, sound in (((1, 0, 1), True), ((1, 1, 1), False)):
            bias = np.zeros((1, 6), np.float32)
            bias[0, [2 * i + k for i, k in enumerate(decisions)]] = 1e30
            logits = session.run(["logits"], {"image": images(1).numpy(), "router_bias": bias})[0]
            assert np.isfinite(logits).all() == sound


def test_static_runs_every_block_and_charges_no_router():
    net = network()
    trace = StaticExecutor(net, threads=2)(images(5))
    expected = net.forward_path(images(5), torch.ones(3, dtype=torch.int64), heads=False)
    assert_logits_alike(trace.logits, expected.logits.detach())
    assert trace.decisions.tolist() == [[1, 1, 1]] * 5
    assert trace.macs.tolist() == [net.static_macs] * 5


def test_a_path_model_holds_no_router_and_no_skipped_weight():
    net = network()
    full, least = path_model(net).ByteSize(), path_model(net, [0, 0, 0]).ByteSize()
    assert least < 0.1 * full


# The engine.


def test_auto_takes_onnx_and_falls_back_above_the_break_even(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("SPNET_CACHE", str(tmp_path))
    net = network()
    assert Engine(net).choice(1) == Engine(net).choice(64) == "onnx"
    assert Engine(net, expected_cost=0.5).choice(64) == "onnx"
    high = Engine(net, expected_cost=0.95)
    assert high.choice(64) == "static" and Engine(net, "onnx", expected_cost=0.95).choice(64) == "onnx"
    assert high(images(3)).macs.tolist() == [net.static_macs] * 3
    skipping = torch.zeros(3, dtype=torch.int64)
    assert high(images(3), force=skipping).decisions.sum() == 0  # forced decisions are obeyed all the same
    assert Engine(network("static")).choice(2) == "static"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert Engine(net).choice(1) == "branching" and Engine(net).choice(2) == "gathered"


def test_onnx_refuses_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch):
    engine = Engine(network(), "onnx")
    with pytest.raises(UserError, match="takes images of"):
        engine(images(2, size=9))
    with pytest.raises(UserError, match="NaN"):
        engine(images(2) * float("nan"))
    with pytest.raises(UserError, match="give at least one"):
        engine(images(0))
    with pytest.raises(UserError, match="takes options"):
        engine(images(2), force=torch.full((3,), 2))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'spnet\[onnx\]'"):
        Engine(network(), "onnx")


def test_a_missing_runtime_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'spnet\[onnx\]'"):
        OnnxExecutor(network())


def test_a_part_without_an_onnx_form_is_named():
    class Strange(nn.Module):
        macs, identity_skip = (0, 1), True

    net = create_model("resnet8", "dynamic", image_size=8).eval()
    net.blocks[1] = Strange()  # type: ignore[call-overload]
    with pytest.raises(UserError, match="Strange"):
        check_form(net)
    with pytest.raises(UserError, match="Strange"):
        Engine(net, "onnx")
    assert Engine(net).choice(1) == "branching"


def test_router_logits_are_those_of_the_run_whenever_they_are_asked_for():
    """They take a second run: of the image as it was, under the threshold and the decisions of then."""
    net = network()
    force = net.cheapest_path
    for executor, x in ((OnnxExecutor(net), images(1)), (OnnxExecutor(net), images(3).numpy())):
        expected = OnnxExecutor(net)(x, force).router_logits
        trace = executor(x, force)
        x[:] = 0
        assert len(trace.router_logits) == len(expected)
        assert all(torch.allclose(a, b) for a, b in zip(trace.router_logits, expected, strict=True))
