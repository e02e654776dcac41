"""ConvNet-AIG: the checklist and worked values of its specification that concern the method as a whole.

Gate sizes and the opening rate are in test_routers.py, open-all, all-closed and costs in test_dynamic.py, executors in
test_executors.py, the loss alone in losses/test_target_rate.py.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import SHAPE, agreeing, images, lively, paths
from torch import Tensor

from spnet import DynamicNetwork, Trace, UserError, create_model
from spnet.build import create_method
from spnet.inference.runtimes import gathered
from spnet.methods import Batch, Losses, Step
from spnet.methods.convnet_aig import ConvNetAIG, ConvNetAIGConfig
from spnet.methods.gated import add_rate_terms
from spnet.network.dynamic import Noise
from spnet.network.sampling import GumbelStraightThrough, gumbel_like

RUN = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]])
"""The specification's decisions: three blocks, four samples."""


def network(**settings) -> DynamicNetwork:
    return lively(create_model("resnet8", "convnet-aig", in_channels=1, image_size=8, seed=0, **settings))


def drawn(net: DynamicNetwork, run_LB: Tensor, logits: Tensor | None = None) -> Trace:
    """A trace whose gates are the given decisions, as leaves that gather gradient."""
    batch = run_LB.shape[1]
    trace = net(images(batch))
    trace.gates = tuple(torch.stack([1 - run, run], 1).float().requires_grad_() for run in run_LB)
    trace.logits = torch.tensor([[0.0, math.log(3)]]).expand(batch, -1) if logits is None else logits
    return trace


def rate_losses(run_LB: Tensor = RUN, **settings) -> tuple[Losses, Trace]:
    net = network(**settings)
    trace = drawn(net, run_LB)
    method = create_method("convnet-aig", "", settings)
    labels = torch.ones(run_LB.shape[1], dtype=torch.int64)
    losses = Losses({"classification": F.cross_entropy(trace.logits, labels)}, trace)
    return add_rate_terms(losses, net, method.config), trace


def test_defaults_are_the_cifar_scripts():
    c = ConvNetAIGConfig()
    assert (c.rate, c.target, c.hidden, c.router_dropout, c.tau) == (2.0, 0.6, 16, 0.0, 1.0)
    assert ConvNetAIG.rule.skip == "relu"
    assert [phase.name for phase in ConvNetAIG().phases(7)] == ["dynamic"]


def test_worked_rate_loss_and_total():
    losses, trace = rate_losses()
    assert losses.watched["rate"].item() == pytest.approx(0.305 / 3, abs=1e-6)
    assert losses.terms["rate"].item() == pytest.approx(0.203333, abs=1e-6)
    assert losses.terms["classification"].item() == pytest.approx(0.287682, abs=1e-6)
    assert losses.total.item() == pytest.approx(0.491015, abs=1e-6)
    losses.terms["rate"].backward()
    for gate, slope in zip(trace.gates, (0.05, -0.116667, 0.133333), strict=True):
        assert gate.grad is not None
        assert gate.grad[:, 1].tolist() == pytest.approx([slope] * 4, abs=1e-6)
        assert not gate.grad[:, 0].any()


def test_the_rate_loss_is_zero_at_its_target():
    run = torch.tensor([[1, 1, 1, 0, 0]] * 3)
    assert rate_losses(run, target=0.6)[0].watched["rate"].item() == pytest.approx(0, abs=1e-12)


def test_options_of_the_rate_loss():
    assert rate_losses(rate_reduction="sum")[0].watched["rate"].item() == pytest.approx(0.305, abs=1e-6)
    assert rate_losses(rate_one_sided=True)[0].watched["rate"].item() == pytest.approx((0.0225 + 0.16) / 3, abs=1e-6)
    unweighted, _ = rate_losses(rate=0.0)
    assert list(unweighted.terms) == ["classification"] and "rate" in unweighted.watched


def test_cost_term_in_executed_blocks():
    """Samples run 2, 3, 1 and 2 of three blocks."""
    losses, _ = rate_losses(cost=0.5, cost_blocks=2.0)
    assert losses.terms["cost"].item() == pytest.approx(0.5 * (0 + 1 + 1 + 0) / 4)
    default, _ = rate_losses(cost=1.0)  # 0: target x blocks = 1.8
    assert default.watched["cost"].item() == pytest.approx((0.2 + 1.2 + 0.8 + 0.2) / 4)
    batch, _ = rate_losses(cost=1.0, cost_blocks=1.5, cost_form="batch")
    assert batch.watched["cost"].item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("term", "value", "settings"),
    [
        ("rate", 0.305 / 3, {"rate": 1.0}),
        ("rate", 0.305, {"rate": 1.0, "rate_reduction": "sum"}),
        ("rate", 0.1825 / 3, {"rate": 1.0, "rate_one_sided": True}),
        ("cost", 0.2, {"cost": 1.0, "cost_form": "batch"}),
    ],
)
def test_worked_terms(term: str, value: float, settings: dict):
    assert rate_losses(**settings)[0].terms[term].item() == pytest.approx(value, abs=1e-6)


def test_a_target_of_one_means_no_gate():
    gated, partly = network(), network(targets=(1, 0.6, 0.6))
    assert not [name for name in partly.state_dict() if name.startswith("router.mlps.0.")]

    def size(net: DynamicNetwork) -> int:
        assert net.router is not None
        return sum(p.numel() for p in net.router.parameters())

    assert size(gated) - size(partly) == 338
    trace = partly(images(4))
    assert (trace.decisions[:, 0] == 1).all() and len(trace.gates) == 2

    everywhere = network(target=1.0)
    assert size(everywhere) == 0 and not any(everywhere.gated)
    trace = everywhere(images(4))
    assert (trace.decisions == 1).all() and trace.macs.tolist() == [everywhere.static_macs] * 4


def test_blocks_without_a_gate_dilute_the_mean():
    """The divisor stays the number of all blocks, as published."""
    losses, _ = rate_losses(RUN[1:], targets=(1, 0.6, 0.6))
    assert losses.watched["rate"].item() == pytest.approx((0.1225 + 0.16) / 3, abs=1e-6)
    total, _ = rate_losses(RUN[1:], targets=(1, 0.6, 0.6), rate_reduction="sum")
    assert total.watched["rate"].item() == pytest.approx(0.1225 + 0.16, abs=1e-6)


def test_each_block_has_its_own_target():
    losses, _ = rate_losses(targets=(0.75, 0.25, 0.9))
    assert losses.watched["rate"].item() == pytest.approx(0.01 / 3, abs=1e-6)


def test_targets_need_one_value_a_block():
    with pytest.raises(UserError, match="one value a block: 3 for resnet8, not 2"):
        network(targets=(0.5, 0.5))


def test_the_gate_is_hard_forward_and_soft_backward():
    net = network().train()
    noise = Noise(torch.Generator().manual_seed(7))
    trace = net(images(16), sampler=GumbelStraightThrough(), noise=noise)
    again = torch.Generator().manual_seed(7)
    for gate, logits in zip(trace.gates, trace.router_logits, strict=True):
        assert set(gate.unique().tolist()) <= {0.0, 1.0} and torch.equal(gate.sum(1), torch.ones(16))
        soft = ((logits + gumbel_like(logits, again)) / 1.0).softmax(1)
        weight = torch.randn(16, 2)
        hard_slope = torch.autograd.grad((gate * weight).sum(), logits, retain_graph=True)[0]
        soft_slope = torch.autograd.grad((soft * weight).sum(), logits, retain_graph=True)[0]
        assert torch.allclose(hard_slope, soft_slope, atol=1e-7) and hard_slope.any()


def test_the_rate_loss_reaches_every_router_alone():
    method, net = create_method("convnet-aig"), network().train()
    phase = method.phases(1)[0]
    batch = Batch(images(32), torch.randint(0, 10, (32,)))
    losses = phase.objective(net, batch, Step(phase, noise=Noise(torch.Generator().manual_seed(0))))
    losses.terms["rate"].backward()
    assert net.router is not None
    for name, parameter in net.router.named_parameters():
        if name.endswith("fc2.bias"):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_no_noise_at_test():
    net, x = network(), images(64)
    traces = [net(x) for _ in range(3)]
    assert all(torch.equal(trace.logits, traces[0].logits) for trace in traces)
    assert torch.equal(traces[0].decisions, torch.stack([z.argmax(1) for z in traces[0].router_logits], 1))


def test_really_skipping_agrees_with_masking_to_five_digits():
    net, x = network(), images(33)
    decisions = paths(net, 33)
    with torch.no_grad():
        masked, skipped = net.forward_path(x, decisions), net.forward_path(x, decisions, executor=gathered)
    assert agreeing(skipped.logits, masked.logits, 1e-5)


def test_projection_shortcuts_are_an_option_and_always_paid():
    projected = create_model("resnet110", "convnet-aig", shortcut="projection")
    assert projected.static_macs == 253_149_824
    assert sum(p.numel() for p in projected.backbone.parameters()) == 1_730_714
    assert projected.input_shape == (3, 32, 32) != SHAPE
    assert [i for i, block in enumerate(projected.blocks) if block.macs[0]] == [18, 36]
