"""SP-Net: the checklist of its specification that concerns the method as a whole; losses alone are in losses/.

Router sizes and the opening rate are in test_routers.py; open-all, determinism and "alone as in a batch" in
test_dynamic.py.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny import SHAPE, images, lively
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import spnet
from spnet import DynamicNetwork, Trace, UserError, create_model
from spnet.build import build_network, create_method
from spnet.losses import feature_evolution, logit_alignment, path_alignment
from spnet.methods import Batch, Losses, Phase, Step
from spnet.methods.spnet import AuxiliaryModule, SPNet, SPNetConfig, momentum_update
from spnet.methods.spnet import method as module
from spnet.network.dynamic import Noise
from spnet.training.step import freeze


def built(
    method: str = "spnet", wrapper: str = "", *, backbone: str = "resnet8", **settings: Any
) -> tuple[SPNet, DynamicNetwork]:
    method_ = create_method(method, wrapper, settings)
    net = build_network(method_, backbone, num_classes=10, input_shape=SHAPE, seed=0)
    method_.attach(net)
    assert isinstance(method_, SPNet)
    return method_, net


def batch(count: int = 16, seed: int = 0) -> Batch:
    return Batch(images(count, seed=seed), torch.arange(count) % 10)


def noise(seed: int) -> Noise:
    return Noise(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1))


def objective(method: SPNet, net: DynamicNetwork, data: Batch | None = None, seed: int = 0) -> Losses:
    phase = method.phases(4)[-1]
    freeze(net, phase)
    return phase.objective(net, data or batch(), Step(phase, noise=noise(seed), teacher_noise=noise(seed + 50)))


def step(method: SPNet, net: DynamicNetwork, optimizer: torch.optim.Optimizer, seed: int = 0) -> Losses:
    losses = objective(method, net, batch(seed=seed), seed)
    optimizer.zero_grad()
    losses.total.backward()
    optimizer.step()
    return losses


# The auxiliary module


def test_worked_momentum_update():
    averaged, current = [torch.ones(2)], [torch.zeros(2)]
    for _ in range(3):
        momentum_update(averaged, current, 0.6)
    assert averaged[0].tolist() == pytest.approx([0.216, 0.216], abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(momentum=st.floats(0, 1), steps=st.integers(0, 6), seed=st.integers(0, 99))
def test_the_average_is_its_closed_form(momentum: float, steps: int, seed: int):
    """After k steps: m^k theta_0 + (1 - m) sum_i m^(k - i) theta_i."""
    generator = torch.Generator().manual_seed(seed)
    history = [torch.randn(5, generator=generator) for _ in range(steps + 1)]
    student: Any = nn.Linear(5, 1, bias=False)
    with torch.no_grad():
        student.weight.copy_(history[0])
        auxiliary = AuxiliaryModule(student, momentum)
        for theta in history[1:]:
            student.weight.copy_(theta)
            auxiliary.update(student)
    expected: Tensor = momentum**steps * history[0]
    for i in range(1, steps + 1):
        expected = expected + (1 - momentum) * momentum ** (steps - i) * history[i]
    assert torch.allclose(next(auxiliary.net.parameters()).detach().flatten(), expected, atol=1e-5)


def test_the_average_is_torchs():
    """`AveragedModel` copies at its first update, as ours starts as a copy; later ones are the momentum average."""
    method, net = built(auxiliary_momentum=0.9)
    oracle = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    oracle.update_parameters(net)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        oracle.update_parameters(net)
        method.auxiliary.update(net)
    expected = dict(oracle.module.named_parameters())
    for name, value in method.auxiliary.net.named_parameters():
        assert torch.allclose(value, expected[name], atol=1e-6), name
        assert not torch.allclose(value, net.get_parameter(name), atol=1e-6), name


def test_it_starts_as_a_copy_and_averages_parameters_only():
    _, net = built()
    auxiliary = AuxiliaryModule(lively(net), 0.5)
    assert all(torch.equal(a, b) for a, b in zip(auxiliary.net.parameters(), net.parameters(), strict=True))
    buffers = {name: value.clone() for name, value in auxiliary.net.named_buffers()}
    with torch.no_grad():
        for value in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
            value.add_(1.0)
    auxiliary.update(net)
    for name, value in auxiliary.net.named_buffers():
        assert torch.equal(value, buffers[name]), name
    for mine, theirs in zip(auxiliary.net.parameters(), net.parameters(), strict=True):
        assert torch.allclose(mine, theirs - 0.5, atol=1e-6)


def test_no_gradient_ever_reaches_it():
    method, net = built(preset="paper", evolution=1.0)
    losses = objective(method, net)
    losses.total.backward()
    for parameter in method.auxiliary.parameters():
        assert not parameter.requires_grad and parameter.grad is None
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_order_in_a_step(monkeypatch: pytest.MonkeyPatch):
    """Student forward, momentum update with the student as it was before the step, auxiliary forward, same batch."""
    method, net = built(auxiliary_momentum=0.6)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1)  # now student and copy differ
    start = [p.clone() for p in method.auxiliary.net.parameters()]
    student = [p.detach().clone() for p in net.parameters()]
    events: list[str] = []
    seen: list[Tensor] = []
    update = AuxiliaryModule.update

    def spied(self: AuxiliaryModule, network: nn.Module) -> None:
        events.append("update")
        update(self, network)

    monkeypatch.setattr(AuxiliaryModule, "update", spied)

    def forward(who: str) -> Callable:
        def hook(_: nn.Module, args: tuple[Tensor]) -> None:
            events.append(who)
            seen.append(args[0])
            if who == "auxiliary":
                for theta, before, now in zip(method.auxiliary.net.parameters(), start, student, strict=True):
                    assert torch.allclose(theta, 0.6 * before + 0.4 * now, atol=1e-6)

        return hook

    net.register_forward_pre_hook(forward("student"))
    method.auxiliary.net.register_forward_pre_hook(forward("auxiliary"))
    step(method, net, torch.optim.SGD(net.parameters(), lr=0.1))
    assert events == ["student", "update", "auxiliary"]
    assert seen[0] is seen[1]
    for theta, before, now in zip(method.auxiliary.net.parameters(), start, student, strict=True):
        assert torch.allclose(theta, 0.6 * before + 0.4 * now, atol=1e-6)  # the step's own result comes one step later


def test_it_has_its_own_statistics_dropout_and_noise():
    method, net = built()
    guides: list[Trace] = []
    method.auxiliary.net.register_forward_hook(lambda *args: guides.append(args[-1]))
    trace = objective(method, net).trace
    assert method.auxiliary.net.training
    assert not torch.equal(guides[0].router_logits[0], trace.router_logits[0])  # its dropout masks
    assert not torch.equal(guides[0].decisions, trace.decisions)  # its Gumbel noise
    counted = [b for name, b in method.auxiliary.net.named_buffers() if name.endswith("num_batches_tracked")]
    assert counted and all(int(count) == 1 for count in counted)


def test_it_begins_as_a_copy_when_the_static_phase_ends():
    method, net = built(static_share=0.5)
    first, second = method.phases(4)
    assert (first.name, first.warmup, second.name) == ("static", True, "dynamic")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.5)
    assert first.on_start is None and second.on_start is not None
    second.on_start(net)
    for name, value in method.auxiliary.net.state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name


def test_it_is_not_in_what_is_exported_or_loaded(trained: Path):
    state = load_file(trained / "model.safetensors")
    assert set(state) == set(create_model("resnet8", "spnet", in_channels=1, image_size=8).state_dict())
    loaded = spnet.load(trained)
    assert not [m for m in loaded.modules() if isinstance(m, AuxiliaryModule)]
    saved = torch.load(trained / "state" / "resume.pt", weights_only=True)
    assert [name for name in saved["method"] if name.startswith("auxiliary.net.")]


# The terms


def test_presets_and_defaults():
    assert SPNetConfig().weights == (0.1, 0.1, 1e-4)
    assert SPNetConfig(preset="paper").weights == (1.0, 0.5, 1e-4)
    assert SPNetConfig(preset="paper", logits=0.3).weights == (1.0, 0.3, 1e-4)
    assert SPNetConfig(path=0.0).weights == (0.0, 0.1, 1e-4)
    inner = built()[0].inner.config
    assert (inner.target, inner.rate, inner.hidden, inner.router_dropout, inner.tau) == (0.8, 2.0, 128, 0.4, 1.0)
    assert SPNetConfig().auxiliary_momentum == 0.6 and SPNetConfig().evolution_form == "within-stage"


def test_total_is_the_weighted_sum_of_what_is_watched():
    weights: dict[str, Any] = {
        "classification": 0.7,
        "path": 0.3,
        "logits": 0.2,
        "evolution": 0.4,
        "rate": 1.5,
        "cost": 0.05,
    }
    method, net = built("convnet-aig", "spnet", evolution_form="stage", **weights)
    losses = objective(method, net)
    assert set(losses.terms) == set(weights)
    for name, weight in weights.items():
        assert losses.terms[name].item() == pytest.approx(weight * losses.watched[name].item(), rel=1e-5), name
        assert losses.watched[name] > 0


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"path_form": "kl"},
        {"logits_form": "kl"},
        {"logits_form": "kl", "logits_temperature": 3.0},
        {"logits_target": "last"},
        {"logits_target": "last", "logits_form": "kl", "stage_weights": (0.5, 0.25, 2.0)},
        {"evolution_form": "stage"},
        {"evolution_form": "stage", "evolution_pairs": "all"},
        {"evolution_form": "kl"},
    ],
    ids=str,
)
def test_what_the_terms_compare(own: dict[str, Any]):
    """The losses alone, on the two traces of the step: raw router logits and class logits against the guide's, and the
    network's own pooled features. Weighted, they have the terms' gradient."""
    method, net = built(backbone="resnet20", preset="paper", evolution=0.3, **own)
    lively(net)  # the network has moved on, its copy has not
    guides: list[Trace] = []
    method.auxiliary.net.register_forward_hook(lambda *args: guides.append(args[-1]))
    losses = objective(method, net)
    trace, (guide,) = losses.trace, guides
    if own.get("evolution_form", "within-stage") == "within-stage":
        p = trace.block_features
        readings: Any = [(p[0], p[1], p[2]), (p[3], p[4], p[5]), (p[6], p[7], p[8])]
    else:
        readings = trace.aligned_features
    expected = {
        "path": path_alignment(trace.router_logits, guide.router_logits, own.get("path_form", "mse")),
        "logits": logit_alignment(
            trace.stage_logits,
            guide.stage_logits,
            own.get("stage_weights", (0.1, 0.2, 1.0)),
            own.get("logits_form", "mse"),
            own.get("logits_target", "same-stage"),
            own.get("logits_temperature", 1.0),
        ),
        "evolution": feature_evolution(
            readings, own.get("evolution_form", "within-stage"), own.get("evolution_pairs", "adjoining")
        ),
    }
    for name, weight in (("path", 1.0), ("logits", 0.5), ("evolution", 0.3)):
        value = expected[name]
        assert value > 0.01
        torch.testing.assert_close(losses.watched[name], value.detach(), atol=0, rtol=1e-5)
        slopes, written = (
            torch.autograd.grad(total, list(net.parameters()), retain_graph=True, allow_unused=True)
            for total in (losses.terms[name], weight * value)
        )
        for slope, other in zip(slopes, written, strict=True):
            assert (slope is None) == (other is None)
            if slope is not None and other is not None:
                torch.testing.assert_close(slope, other, atol=1e-5, rtol=1e-3)


def test_stage_classification_replaces_the_plain_loss():
    method, net = built(stage_weights=(0.5, 0.25, 2.0))
    data = batch()
    losses = objective(method, net, data)
    each = [nn.functional.cross_entropy(z, data.labels).item() for z in losses.trace.stage_logits]
    assert losses.terms["classification"].item() == pytest.approx(
        0.5 * each[0] + 0.25 * each[1] + 2 * each[2], rel=1e-5
    )


def test_worked_stage_classification():
    method, net = built()
    with torch.no_grad():
        for layer in (net.backbone.head, *net.stage_heads.classifiers):  # type: ignore[union-attr]
            layer.weight.zero_()  # type: ignore[union-attr]
            layer.bias.zero_()  # type: ignore[union-attr]
    assert objective(method, net).watched["classification"].item() == pytest.approx(1.3 * math.log(10), abs=1e-6)


@pytest.mark.parametrize(("form", "aligned"), [("within-stage", False), ("stage", True), ("kl", True)])
def test_what_the_stage_heads_read(form: str, aligned: bool):
    _, net = built(evolution_form=form)
    heads = net.stage_heads
    assert heads is not None
    trace = net.eval()(images(3))
    widths = [feature.shape[1] for feature in trace.aligned_features]
    assert widths == ([64, 64, 64] if aligned else [16, 32, 64])
    assert torch.equal(trace.aligned_features[-1], trace.stage_features[-1])  # A_S is the identity
    for s in range(2):
        assert torch.allclose(heads.classifiers[s](trace.aligned_features[s]), trace.stage_logits[s])
        expected = heads.aligners[s](trace.stage_features[s]) if aligned else trace.stage_features[s]
        assert torch.equal(trace.aligned_features[s], expected)
    sizes = 16 * 10 + 10 + 32 * 10 + 10 if not aligned else 2 * (64 * 10 + 10) + 16 * 64 + 32 * 64
    assert sum(p.numel() for p in heads.parameters()) == sizes


def steps(*, count: int = 2, **settings: Any) -> dict[str, Tensor]:
    """All weights and the auxiliary module's after a few steps."""
    method, net = built(backbone="resnet20", **settings)  # three blocks a stage: steps within a stage exist
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for k in range(count):
        step(method, net, optimizer, seed=k)
    return {**net.state_dict(), **method.state.state_dict(prefix="state.")}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("weight", "function"),
    [("evolution", "feature_evolution"), ("logits", "logit_alignment"), ("path", "path_alignment")],
)
def test_a_term_of_weight_zero_leaves_training_bit_identical(
    weight: str, function: str, monkeypatch: pytest.MonkeyPatch
):
    """Against the same training whose term is cut out of the code."""
    others: dict[str, Any] = {"path": 0.5, "logits": 0.5, "evolution": 0.5} | {weight: 0.0}
    without = steps(**others)
    monkeypatch.setattr(module, function, lambda *args, **kwargs: torch.zeros(()))
    assert same(without, steps(**others))
    monkeypatch.undo()
    assert not same(without, steps(**{**others, weight: 0.5}))


def test_without_guides_there_is_no_auxiliary_pass():
    method, net = built(path=0.0, logits=0.0)
    method.auxiliary.net.register_forward_pre_hook(lambda *_: pytest.fail("the auxiliary network ran"))
    losses = objective(method, net)
    assert set(losses.terms) == {"classification", "evolution", "rate"}


def test_switching_the_guides_off_leaves_the_students_noise_alone():
    with_, without = (objective(*built(path=weight, logits=weight)).trace for weight in (0.1, 0.0))
    assert torch.equal(with_.decisions, without.decisions)
    assert all(torch.equal(a, b) for a, b in zip(with_.router_logits, without.router_logits, strict=True))


def test_the_guides_draw_from_streams_of_their_own():
    """A second forward pass of the student, weights unchanged, sees the same noise, guides between or not."""
    second = []
    for weight in (0.1, 0.0):
        method, net = built(path=weight, logits=weight)
        phase, students = method.phases(4)[-1], noise(0)
        freeze(net, phase)
        for _ in range(2):
            losses = phase.objective(net, batch(), Step(phase, noise=students, teacher_noise=noise(50)))
        second.append(losses.trace)
    assert torch.equal(second[0].decisions, second[1].decisions)
    assert torch.equal(second[0].router_logits[0], second[1].router_logits[0])


def test_the_ladder_of_the_ablation():
    """E1 the baseline, E2 + stage classifiers, E3 + evolution, E4 + logits, E5 + path; and E1 + evolution alone."""
    rungs: list[tuple[dict[str, Any], set[str]]] = [
        ({"path": 0, "logits": 0, "evolution": 0}, {"classification", "rate"}),
        ({"path": 0, "logits": 0}, {"classification", "rate", "evolution"}),
        ({"path": 0}, {"classification", "rate", "evolution", "logits"}),
        ({}, {"classification", "rate", "evolution", "logits", "path"}),
        ({"path": 0, "logits": 0, "stage_weights": (0, 0, 1)}, {"classification", "rate", "evolution"}),
    ]
    for settings_, expected in rungs:
        assert set(objective(*built(**settings_)).terms) == expected
    data = batch()
    alone = objective(*built(path=0, logits=0, stage_weights=(0, 0, 1)), data)
    plain = nn.functional.cross_entropy(alone.trace.logits, data.labels)
    assert alone.terms["classification"].item() == pytest.approx(plain.item(), rel=1e-6)


def test_it_wraps_a_static_network():
    """The control for stage heads and teacher without routing: there is no path to align."""
    losses = objective(*built("static", "spnet"))
    assert set(losses.terms) == {"classification", "evolution", "logits"}


@pytest.mark.parametrize("form", ["within-stage", "stage", "kl"])
@pytest.mark.parametrize("bias", [-50.0, 50.0], ids=["all skipped", "all run"])
def test_steps_of_length_zero_do_no_harm(form: str, bias: float):
    """The trap: skipped blocks make steps of exactly zero, where the naive cosine's gradient is of order 1e8."""
    method, net = built(backbone="resnet20", evolution=1.0, evolution_form=form)
    with torch.no_grad():
        for mlp in net.router.mlps.values():  # type: ignore[union-attr]
            mlp.fc2.bias.copy_(torch.tensor([0.0, bias]))  # type: ignore[union-attr]
    losses = objective(method, net)
    assert losses.trace.decisions.unique().tolist() == [int(bias > 0)]
    losses.terms["evolution"].backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() and g.abs().max() < 1e3 for g in gradients)
    if form == "within-stage":
        assert losses.watched["zero_steps"].item() == (1.0 if bias < 0 else 0.0)
        assert (losses.watched["evolution"].item() == 0) == (bias < 0)


@pytest.mark.parametrize("count", [1, 2])
def test_degenerate_batches(count: int):
    method, net = built(router_norm=False)  # a batch norm on pooled features cannot train on one sample
    losses = objective(method, net, batch(count))
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_equal_images_make_equal_features_and_finite_losses():
    method, net = built(evolution=1.0)
    equal = Batch(torch.zeros(8, *SHAPE), torch.zeros(8, dtype=torch.int64))
    losses = objective(method, net, equal)
    losses.total.backward()
    assert losses.total.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_the_stability_metric_is_logged_each_epoch(trained: Path):
    import json

    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert row["evolution_kl"] >= 0 and math.isfinite(row["evolution_kl"])
        assert {"flips", "path_agreement", "distinct_paths", "execution_rate_per_block", "gradient_share"} <= set(row)
    assert [row["phase"] for row in rows] == ["static", "dynamic", "dynamic"]
    assert (
        set(rows[-1]["losses"])
        == set(rows[-1]["gradient_share"])
        == {"classification", "rate", "evolution", "path", "logits"}
    )
    assert "zero_steps" in rows[-1]["watched"]
    assert sum(rows[-1]["gradient_share"].values()) == pytest.approx(1.0, abs=1e-6)


def test_wrapped_phases_keep_their_own_settings():
    method, _ = built("convnet-aig", "spnet", tau=0.7, static_share=0.5)
    warm, main = method.phases(6)
    assert (warm.epochs, main.epochs) == (3, 3)
    assert main.sampler.tau == 0.7  # type: ignore[attr-defined]
    assert not warm.trainable("stage_heads.classifiers.0.weight") and main.trainable("stage_heads.classifiers.0.weight")
    assert isinstance(main, Phase)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"preset": "papers"}, "Did you mean 'paper'?"),
        ({"path_form": "l2"}, "Known: mse, kl"),
        ({"logits_target": "first"}, "Known: same-stage, last"),
        ({"evolution_form": "stages"}, "Did you mean 'stage'?"),
        ({"evolution_pairs": "all"}, "set both"),
        ({"logits_temperature": 2.0}, "set logits_form 'kl'"),
        ({"logits_form": "kl", "logits_temperature": 0.0}, "must be positive"),
        ({"path": -0.1}, "must not be negative"),
        ({"auxiliary_momentum": 1.5}, "between 0 and 1"),
        ({"stage_weights": (1.0, 1.0)}, "one weight per stage: 3 for resnet8, not 2"),
        ({"path": "much"}, "wants a number"),
        ({"logit": 0.1}, "Did you mean 'logits'?"),
    ],
)
def test_settings_that_cannot_be(settings_: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        create_model("resnet8", "spnet", **settings_)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_copied_method_state_fits_its_network():
    method, net = built()
    twin, _ = built()
    twin.state.load_state_dict(copy.deepcopy(method.state.state_dict()))
    assert same(method.state.state_dict(), twin.state.state_dict())
    assert len(list(net.parameters())) == len(list(twin.auxiliary.net.parameters()))
