"""The pooled-MLP router: its size, where it starts, its randomness, and deciding several blocks ahead."""

from typing import Any

import pytest
import torch
from tiny import SHAPE, images, lively

from spnet import create_model
from spnet.network.sampling import GumbelStraightThrough
from spnet.routers import PooledMLP, Router
from spnet.routers.base import drop


def size(router: torch.nn.Module) -> int:
    return sum(p.numel() for p in router.parameters())


def mlp(width: int = 16, blocks: int = 1, *, hidden: int = 8, options: int = 2, **settings) -> Any:
    return PooledMLP([width] * blocks, [options] * blocks, [True] * blocks, hidden=hidden, **settings)


@pytest.mark.parametrize(("width", "spnet", "aig"), [(16, 2690, 338), (32, 4738, 594), (64, 8834, 1106)])
def test_parameters_of_one_router(width: int, spnet: int, aig: int):
    assert size(mlp(width, hidden=128)) == spnet
    assert size(mlp(width, hidden=16)) == aig


@pytest.mark.parametrize(
    ("method", "parameters", "macs"),
    [("spnet", 286_572, 265_728), ("dynamic", 286_572, 265_728), ("convnet-aig", 35_916, 33_216)],
)
def test_all_54_routers_of_resnet110(method: str, parameters: int, macs: int):
    router = create_model("resnet110", method).router
    assert isinstance(router, PooledMLP) and sum(router.gated) == 54
    assert size(router) == parameters
    assert sum(router.macs) == macs and router.start_macs == 0


@pytest.mark.parametrize(
    ("stages", "parameters", "macs"), [((3, 4, 6, 3), 211_232, 210_432), ((3, 4, 23, 3), 491_154, 489_504)]
)
def test_all_routers_of_imagenets_resnets(stages: tuple[int, ...], parameters: int, macs: int):
    """ResNet-50 and -101 as specified: each router reads its block's input, a stage's first the stage before it.

    Over all inputs, 13,120 and 30,528 channels: 16 C + 82 parameters a router and 16 C + 32 multiply-adds.
    """
    before, after = (64, 256, 512, 1024), (256, 512, 1024, 2048)
    widths = [w for b, a, n in zip(before, after, stages, strict=True) for w in (b, *[a] * (n - 1))]
    router = PooledMLP(widths, [2] * len(widths), [True] * len(widths), hidden=16)
    assert (size(router), sum(router.macs)) == (parameters, macs)


@pytest.mark.parametrize(("method", "tolerance"), [("convnet-aig", 0.005), ("spnet", 0.05)])
def test_opening_rate(method: str, tolerance: float):
    """P(run) = sigmoid(2.0 - 0.1) = 0.8699 at initialisation, over more than 1e5 decisions."""
    router = create_model("resnet110", method, seed=0).router
    assert isinstance(router, Router)
    generator = torch.Generator().manual_seed(0)
    state = router.start(images(2048), generator)
    ran = []
    for i, width in enumerate((*[16] * 19, *[32] * 18, *[64] * 17)):
        pooled = torch.randn(2048, width, generator=generator)
        logits, state = router.logits(state, i, pooled, pooled)
        ran.append(GumbelStraightThrough()(i, logits, generator).gate_BK[:, 1])
    assert torch.stack(ran).numel() > 1e5
    assert float(torch.stack(ran).detach().mean()) == pytest.approx(0.8699, abs=tolerance)


def test_only_the_full_option_is_favoured_at_the_start():
    router = mlp(options=3)
    assert router.mlps["0"].fc2.bias.tolist() == pytest.approx([0.1, 0.1, 2.0])
    assert 0 < float(router.mlps["0"].fc2.weight.detach().abs().max()) < 0.01


def test_blocks_without_a_router_cost_and_hold_nothing():
    router = PooledMLP([16, 16, 32], [2, 2, 3], [True, False, True], hidden=8)
    assert list(router.mlps) == ["0", "2"]
    assert router.macs == (16 * 8 + 8 * 2, 0, 32 * 8 + 8 * 3)
    none = PooledMLP([16], [2], [False], hidden=8)
    assert size(none) == 0 and none.macs == (0,)


def test_batch_norm_is_optional():
    assert size(mlp(16, hidden=8, batch_norm=False)) == 16 * 8 + 8 + 8 * 2 + 2
    one = torch.randn(1, 16)
    assert mlp(16, batch_norm=False).train().step((), 0, one, one)[0].shape == (1, 2)


@pytest.mark.parametrize("lookahead", [1, 2, 3, 9])
def test_lookahead_reads_only_the_first_block_of_each_group(lookahead: int):
    blocks = 7
    router = mlp(4, blocks, lookahead=lookahead).eval()
    assert len(router.mlps) == -(-blocks // lookahead)
    assert [i for i, macs in enumerate(router.macs) if macs] == list(range(0, blocks, lookahead))
    features = torch.randn(blocks, 5, 4)
    state = router.start(features[0], None)
    for i in range(blocks):
        first = i - i % lookahead
        logits, state = router.logits(state, i, features[i], features[i])
        scores = router.mlps[str(first)](features[first], None)
        assert torch.equal(logits, scores[:, 2 * (i - first) : 2 * (i - first) + 2])


def test_lookahead_skips_ungated_blocks_when_it_groups():
    router = PooledMLP([4] * 4, [2, 2, 3, 2], [True, False, True, True], hidden=8, lookahead=2)
    assert router.groups == [[0, 2], [3]]
    assert router.macs == (4 * 8 + 8 * 5, 0, 0, 4 * 8 + 8 * 2)


def test_dropout_comes_from_its_own_generator_and_is_off_at_test():
    router, x = mlp(dropout=0.4).train(), torch.randn(64, 16)
    with torch.no_grad():
        router.mlps["0"].fc2.weight.normal_()

    def run(seed: int) -> torch.Tensor:
        state = router.start(x, torch.Generator().manual_seed(seed))
        return router.logits(state, 0, x, x)[0]

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    assert torch.equal(torch.random.get_rng_state(), before)  # torch's own generator was not touched
    router.eval()
    assert torch.equal(run(1), run(2))


def test_dropout_keeps_the_mean():
    ones = drop(torch.ones(200_000), 0.4, torch.Generator().manual_seed(0))
    assert ones.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert float(ones.mean()) == pytest.approx(1.0, abs=0.01)
    assert float((ones == 0).float().mean()) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(
    "settings", [{"lookahead": 0}, {"hidden": 0}, {"router_dropout": 1.0}, {"tau": 0.0}, {"target": 1.5}]
)
def test_settings_that_make_no_router(settings: dict):
    from spnet import UserError

    with pytest.raises(UserError):
        create_model("resnet8", "dynamic", **settings)


def test_a_router_reads_the_pooled_input_of_its_block():
    net = lively(create_model("resnet8", "convnet-aig", in_channels=1, image_size=8))
    x = images(3, SHAPE)
    trace = net(x)
    pooled = net.backbone.stem(x).mean((2, 3))
    for i, features in enumerate((pooled, *trace.block_features[:-1])):
        assert torch.allclose(trace.router_logits[i], net.router.mlps[str(i)](features, None), atol=1e-6)  # type: ignore
