"""RDI-Net: related routers, three options, the warm-up on random paths, the sample relation, SP-Net on top."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from tiny import SHAPE, agreeing, empty_path, full_path, images, lively, paths, plain_resnet, two_steps

from spnet import DynamicNetwork, UserError, create_model
from spnet.bench.macs import counted_macs
from spnet.build import build_network, create_method
from spnet.inference.runtimes import branching, gathered
from spnet.losses import contrastive_relation, path_vectors
from spnet.methods import Batch, Method, Step
from spnet.methods.rdi_net import PathQueue, RDINet, RDINetConfig, Relational, aggregate
from spnet.methods.spnet import SPNetConfig
from spnet.network.sampling import Argmax, GumbelSoft, GumbelStraightThrough, Uniform
from spnet.runs.config import TrainingConfig
from spnet.training.step import freeze


def built(wrapper: str = "", **settings) -> tuple[Method, DynamicNetwork]:
    method = create_method("rdi-net", wrapper, settings)
    net = build_network(method, "resnet8", num_classes=10, input_shape=SHAPE, seed=0)
    method.attach(net)
    return method, net


def model(**settings) -> DynamicNetwork:
    return create_model("resnet8", "rdi-net", in_channels=1, image_size=8, seed=0, **settings)


def relational(blocks: int = 3, *, gated: list[bool] | None = None, **settings) -> Relational:
    torch.manual_seed(0)
    return Relational([16] * blocks, [3] * blocks, gated or [True] * blocks, **settings).eval()


def node_of(router: torch.nn.Module | None, i: int) -> Any:
    assert isinstance(router, Relational)
    return router.nodes[str(i)]


def pooled(count: int) -> torch.Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(0))


def one_hot(*options: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(options), 3).float()


# The router


def test_parameters_and_macs():
    for width, parameters in ((16, 1894), (32, 2758), (64, 6022)):
        router = Relational([width], [3], [True])
        assert sum(p.numel() for p in router.parameters()) == parameters
        assert router.macs == (width * width + 3 * width + 2 * 768,)
    router = create_model("resnet110", "rdi-net").router
    assert isinstance(router, Relational) and sum(router.gated) == 54
    assert sum(p.numel() for p in router.parameters()) == 188_004
    assert sum(router.macs) == 181_776


def test_worked_aggregation():
    second_last, last, own = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 1.0, 0]]), torch.tensor([[0.2, 0.3, 0.5]])
    mixed = aggregate(second_last_BK=second_last, last_BK=last, own_BK=own)
    torch.testing.assert_close(mixed, torch.tensor([[0.45, 0.80, 0.50]]))
    slip = aggregate(second_last_BK=second_last, last_BK=second_last, own_BK=own)
    torch.testing.assert_close(slip, torch.tensor([[0.95, 0.30, 0.50]]))
    alone = aggregate(second_last_BK=own, last_BK=own, own_BK=own)
    torch.testing.assert_close(alone, torch.tensor([[0.35, 0.525, 0.875]]))


def test_each_router_reads_its_two_predecessors_in_their_order():
    router = relational(4)
    x = pooled(2)
    drawn = [one_hot(0, 1), one_hot(1, 2), one_hot(2, 0)]
    state = router.start(x, None)
    for i, (earlier_weights, gate) in enumerate(
        zip([{}, {0: 0.75}, {0: 0.25, 1: 0.5}, {1: 0.25, 2: 0.5}], [*drawn, drawn[0]], strict=True)
    ):
        node = node_of(router, i)
        own = node.fc2(node.norm(node.fc1(x)).relu())
        mixed = own * (1.75 if i == 0 else 1.0) + sum(weight * drawn[j] for j, weight in earlier_weights.items())
        logits, state = router.logits(state, i, x, x)
        torch.testing.assert_close(logits, node.fc3(mixed @ node.graph.weight.T))
        state = router.observe(state, i, gate)


def test_both_predecessors_carry_a_gradient():
    router = relational()
    x = pooled(2)
    state = router.start(x, None)
    gates = [torch.full((2, 3), 1 / 3, requires_grad=True) for _ in range(2)]
    for i, gate in enumerate(gates):
        _, state = router.logits(state, i, x, x)
        state = router.observe(state, i, gate)
    router.logits(state, 2, x, x)[0][:, 0].sum().backward()
    second_last, last = (gate.grad for gate in gates)
    assert second_last is not None and last is not None and last.abs().max() > 0
    torch.testing.assert_close(last, 2 * second_last)


def test_relations_step_over_blocks_without_a_router():
    router = relational(3, gated=[True, False, True])
    assert router.macs[1] == 0 and set(router.nodes) == {"0", "2"}
    x = pooled(1)
    _, state = router.logits(router.start(x, None), 0, x, x)
    state = router.observe(state, 0, one_hot(2))
    node = node_of(router, 2)
    mixed = node.own(x) + 0.75 * one_hot(2)
    torch.testing.assert_close(router.logits(state, 2, x, x)[0], node.decide(mixed, None))


def test_features_are_handed_on_whatever_is_decided():
    x = pooled(2)

    def second(handed_on: str, decided: int) -> torch.Tensor:
        router = relational(handed_on=handed_on)
        _, state = router.logits(router.start(x, None), 0, x, x)
        return router.logits(router.observe(state, 0, one_hot(decided, decided)), 1, x, x)[0]

    assert torch.equal(second("features", 0), second("features", 2))
    assert not torch.equal(second("decisions", 0), second("decisions", 2))
    router = relational(handed_on="features")
    first, node = node_of(router, 0), node_of(router, 1)
    torch.testing.assert_close(second("features", 0), node.decide(node.own(x) + 0.75 * first.own(x), None))


def test_nodes_of_one_size_only():
    with pytest.raises(ValueError, match="one size"):
        Relational([16, 16], [2, 3], [True, True])


def test_no_option_is_favoured_at_the_start():
    opened = []
    for seed in range(40):
        torch.manual_seed(seed)
        router = Relational([16], [3], [True])
        x = torch.rand(64, 16)
        opened.append(router.logits(router.start(x, None), 0, x, x)[0].softmax(1).mean(0))
    torch.testing.assert_close(torch.stack(opened).mean(0), torch.full((3,), 1 / 3), atol=0.1, rtol=0)


def test_dropout_is_on_the_logits_in_training_only():
    router = relational(1, dropout=0.4)
    x = pooled(500)
    kept, _ = router.logits(router.start(x, None), 0, x, x)
    router.train()
    for norm in (m for m in router.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.eval()
    dropped, _ = router.logits(router.start(x, torch.Generator().manual_seed(0)), 0, x, x)
    zero = dropped == 0
    assert float(zero.float().mean()) == pytest.approx(0.4, abs=0.05)
    torch.testing.assert_close(dropped[~zero], kept[~zero] / 0.6)
    again, _ = router.logits(router.start(x, torch.Generator().manual_seed(0)), 0, x, x)
    assert torch.equal(dropped, again)
    without = relational(1, dropout=0.0).train()
    assert not bool((without.logits(without.start(x, None), 0, x, x)[0] == 0).any())


# Paths and their cost


def test_expected_cost_of_the_uniform_warmup():
    net = create_model("resnet110", "rdi-net")
    expected = net.backbone.stem_macs + net.backbone.head_macs + sum(sum(block.macs) / 3 for block in net.blocks)
    assert expected == pytest.approx(126_272_128, rel=1e-9)
    noise = torch.Generator().manual_seed(0)
    drawn = [Uniform()(i, torch.zeros(4096, 3), noise).gate_BK.argmax(1) for i in range(len(net.blocks))]
    decisions = torch.stack(drawn, 1)
    macs = net.macs_of(decisions, torch.full((len(decisions),), 2), routed=False, heads=False)
    assert float(macs.double().mean()) == pytest.approx(126_272_128, rel=0.01)


def test_the_warmup_runs_no_router_and_trains_no_router():
    method, net = built()
    uniform = method.phases(3)[0]
    assert uniform.name == "uniform" and uniform.warmup and uniform.sampler == Uniform()
    trace = net.train()(images(8), sampler=uniform.sampler)
    assert not trace.router_logits and set(trace.decisions.unique().tolist()) == {0, 1, 2}
    assert not any(uniform.trainable(name) for name, _ in net.named_parameters() if name.startswith("router."))


def test_full_everywhere_is_the_plain_resnet_and_skip_everywhere_only_shortcuts():
    net = lively(model())
    x = images(4)
    torch.testing.assert_close(
        net.forward_path(x, full_path(net)).logits, plain_resnet(net.state_dict(), x), atol=1e-5, rtol=1e-5
    )
    h = net.backbone.stem(x)
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        h = torch.nn.functional.pad(h[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, width - h.shape[1])).relu()
    skipped = net.forward_path(x, empty_path(net))
    torch.testing.assert_close(skipped.logits, net.backbone.head(h.mean((2, 3))))
    assert bool((net.forward_path(x, torch.ones(3, dtype=torch.int64)).decisions == 1).all())


@pytest.mark.parametrize("handed_on", ["decisions", "features"])
@torch.no_grad()
def test_executors_agree_and_cost_what_torch_counts(handed_on: str):
    net = lively(model(handed_on=handed_on), seed=1)
    x = images(8)
    masked = net(x)
    assert len(masked.decisions.unique()) > 1
    torch.testing.assert_close(net(x, executor=gathered).logits, masked.logits, atol=1e-5, rtol=1e-5)
    for i in range(len(x)):
        one = x[i : i + 1]
        torch.testing.assert_close(net(one, executor=branching).logits, masked.logits[i : i + 1], atol=1e-5, rtol=1e-5)
        assert counted_macs(net, one) == int(masked.macs[i])
    for path in paths(net, 4):
        assert counted_macs(net, x[:1], path) == int(net.forward_path(x[:1], path).macs)


@torch.no_grad()
def test_evaluation_is_deterministic_and_alone_equals_in_a_batch():
    net = lively(model())
    x = images(7)
    together, again = net(x), net(x)
    assert torch.equal(together.logits, again.logits) and torch.equal(together.decisions, again.decisions)
    assert all(bool(((gate == 0) | (gate == 1)).all()) for gate in together.gates)
    for i in range(len(x)):
        alone = net(x[i : i + 1])
        assert torch.equal(alone.decisions[0], together.decisions[i]) and alone.macs[0] == together.macs[i]
        torch.testing.assert_close(alone.logits[0], together.logits[i], atol=1e-5, rtol=1e-5)


def test_two_options_are_a_setting():
    net = model(options=2)
    assert net.options == (2, 2, 2) and net.router is not None
    assert agreeing(
        net.eval().forward_path(images(2), full_path(net)).logits, plain_resnet(net.state_dict(), images(2))
    )
    assert model(skip_rule="plain").options == (3, 3, 3)


# The sample relation


def relation_losses(net: DynamicNetwork, method: Method, copies: int = 1, count: int = 6):
    phase = next(phase for phase in method.phases(3) if phase.name == "routers")
    assert phase.copies == copies
    freeze(net, phase)
    noise = Step(phase).noise.__class__(torch.Generator().manual_seed(0), torch.Generator().manual_seed(1))
    batch = Batch(images(count), torch.arange(count) // copies % 10, copies)
    return phase.objective(net, batch, Step(phase, noise=noise))


@pytest.mark.parametrize("similarity", ["features", "predictions", "entropy"])
def test_matching_reaches_the_routers_but_not_through_the_similarity(similarity: str):
    method, net = built(relation=1.0, relation_similarity=similarity)
    losses = relation_losses(net, method)
    weights = [node_of(net.router, 0).fc1.weight, net.backbone.get_parameter("head.weight")]
    gradients = torch.autograd.grad(losses.terms["relation"], weights, allow_unused=True)
    assert gradients[0] is not None and float(gradients[0].abs().max()) > 0
    assert gradients[1] is None


def test_no_weight_no_relation():
    method, net = built(relation=0.0)
    assert set(relation_losses(net, method).terms) == {"classification"}
    method, net = built(relation=0.5)
    losses = relation_losses(net, method)
    assert losses.terms["relation"].item() == pytest.approx(0.5 * losses.watched["relation"].item())


@torch.no_grad()
def test_the_relation_is_for_training_only():
    x = images(5)
    traces = [lively(model(relation=weight, relation_form="contrastive"))(x) for weight in (0.0, 0.8)]
    assert torch.equal(traces[0].logits, traces[1].logits) and torch.equal(traces[0].macs, traces[1].macs)


def test_contrastive_takes_copies_as_positives_and_past_paths_as_negatives():
    method, net = built(relation=1.0, relation_form="contrastive", relation_queue=8)
    assert isinstance(method, RDINet)
    first = relation_losses(net, method, copies=2)
    assert first.watched["relation"].item() == 0.0  # no past, nothing to contrast with: the current paths are not in it
    seconds = path_vectors(first.trace.gates)[1::2].detach()
    assert torch.equal(method.queue.past(), seconds)
    past = method.queue.past().clone()
    second = relation_losses(net, method, copies=2)
    vectors = path_vectors(second.trace.gates)
    expected = contrastive_relation(vectors[0::2], vectors[1::2], past, 1.0)
    assert second.watched["relation"].item() == pytest.approx(expected.item(), abs=1e-6) != 0.0
    second.total.backward()  # the queue was written after it was read


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 9])
def test_queue_keeps_the_newest(batch: int):
    queue = PathQueue(4, 2)
    assert queue.past().shape == (0, 2)
    seen: list[float] = []
    for step in range(5):
        rows = torch.arange(step * batch, (step + 1) * batch).float().unsqueeze(1).expand(-1, 2).requires_grad_()
        queue.push(rows)
        seen += rows[:, 0].tolist()
        assert sorted(queue.past()[:, 0].tolist()) == seen[-4:]
        assert not queue.past().requires_grad and queue.paths_MD.shape == (4, 2)


def test_queue_is_saved_and_restored():
    queue, other = PathQueue(4, 2), PathQueue(4, 2)
    for rows in (torch.rand(3, 2), torch.rand(3, 2)):
        queue.push(rows)
    other.load_state_dict(queue.state_dict())
    more = torch.rand(2, 2)
    queue.push(more)
    other.push(more)
    assert torch.equal(queue.past(), other.past()) and queue.pushed == other.pushed == 8


def test_only_the_contrastive_form_keeps_a_queue():
    assert not built()[0].state.state_dict()
    assert not built(relation=0.0, relation_form="contrastive")[0].state.state_dict()
    state = built(relation_form="contrastive", relation_queue=8)[0].state.state_dict()
    assert state["queue.paths_MD"].shape == (8, 9)


def test_rate_and_cost_are_off_unless_asked_for():
    method, net = built()
    assert set(relation_losses(net, method).terms) == {"classification", "relation"}
    method, net = built(rate=2.0, cost=1.0, target=0.5)
    assert {"rate", "cost"} < set(relation_losses(net, method).terms)


def test_without_routers_there_is_nothing_to_relate():
    for settings in ({}, {"relation_form": "contrastive"}):
        method, net = built(target=1.0, **settings)
        assert not any(net.gated)
        phase = method.phases(3)[1]
        batch = Batch(images(4), torch.arange(4), phase.copies)
        assert set(phase.objective(net, batch, Step(phase)).terms) == {"classification"}


# Training


def plan(epochs: int, **settings) -> list[tuple[str, int]]:
    return [(phase.name, phase.epochs) for phase in create_method("rdi-net", "", settings).phases(epochs)]


def test_phases():
    assert plan(10) == [("uniform", 3), ("routers", 5), ("finetune", 2)]
    assert plan(3) == [("uniform", 1), ("routers", 1), ("finetune", 1)]
    assert plan(8, static_share=0.25, uniform_share=0.25, finetune_share=0.25)[0] == ("static", 2)
    assert plan(1, uniform_share=0, finetune_share=0) == [("routers", 1)]
    with pytest.raises(UserError, match="3 phases"):
        plan(2)
    _, routers, finetune = create_method("rdi-net").phases(3)
    assert routers.sampler == GumbelSoft(1.0) and finetune.sampler == Argmax()
    assert create_method("rdi-net", "", {"hard": True}).phases(3)[1].sampler == GumbelStraightThrough(1.0)


@pytest.mark.parametrize("settings", [
    {"options": 4}, {"handed_on": "logits"}, {"relation_form": "cosine"}, {"relation_similarity": "labels"},
    {"router_dropout": 1.0}, {"tau": 0}, {"relation_temperature": 0}, {"relation_queue": 0},
])  # fmt: skip
def test_settings_are_checked(settings: dict):
    with pytest.raises(UserError):
        create_method("rdi-net", "", settings).block_rule()


def test_setting_names_collide_with_no_other():
    own, *others = ({f.name for f in fields(c)} for c in (RDINetConfig, TrainingConfig, SPNetConfig))
    assert not any(own & other for other in others)


FROZEN = {"static": "router.", "uniform": "router.", "routers": "backbone.", "finetune": "router."}


@pytest.mark.parametrize("wrapper", ["", "spnet"])
@pytest.mark.parametrize("settings", [
    {"freeze_backbone": True}, {"relation_form": "contrastive"}, {"options": 2, "hard": True, "handed_on": "features"},
])  # fmt: skip
def test_two_steps_of_every_phase(wrapper: str, settings: dict):
    method, net = built(wrapper, static_share=0.2, relation_queue=6, **settings)
    for phase in method.phases(4):
        before = {name: value.clone() for name, value in net.state_dict().items()}
        two_steps(net, phase)
        for name, parameter in net.named_parameters():
            if phase.trainable(name):
                assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), (phase.name, name)
        frozen = FROZEN[phase.name] if phase.name != "routers" or "freeze_backbone" in settings else "nothing"
        changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
        assert changed and not [name for name in changed if name.startswith(frozen)], phase.name


def test_finetuning_runs_the_paths_of_the_test():
    """Frozen routers neither drop nor draw: the paths are those the same weights take at test."""
    method, net = built()
    finetune = method.phases(3)[-1]
    freeze(net, finetune)
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.eval()  # the backbone trains, so its batch norms would see the batch
    x = images(6)
    losses = finetune.objective(net, Batch(x, torch.arange(6)), Step(finetune))
    assert set(losses.terms) == {"classification"}
    assert torch.equal(losses.trace.decisions, net.eval()(x).decisions)


def test_spnet_aligns_paths_of_three_options_and_leaves_the_warmup_alone():
    method, net = built("spnet", relation_form="contrastive")
    uniform, routers, _ = method.phases(3)
    net.train()
    batch = Batch(images(6), torch.arange(3).repeat_interleave(2), 2)
    assert set(uniform.objective(net, batch, Step(uniform)).terms) == {"classification"}
    losses = routers.objective(net, batch, Step(routers))
    assert {"classification", "relation", "path", "logits", "evolution"} == set(losses.terms)
    assert losses.trace.router_logits[0].shape == (6, 3)
    assert "inner.queue.paths_MD" in method.state.state_dict()


def test_the_guide_stands_still_where_the_network_does():
    method, net = built("spnet", freeze_backbone=True)
    routers = method.phases(3)[1]
    two_steps(net, routers)
    guide = method.state["auxiliary"].net  # type: ignore[index]
    for name, value in guide.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(value, net.state_dict()[name]), name
