"""What makes two numbers comparable: matching cost, batch-norm statistics, the controls, figures and their units."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SHAPE, full_path, images, lively, paths
from torch import Tensor, nn

import spnet
from spnet import DynamicNetwork, Engine, Trace, UserError, create_model
from spnet.backbones import BlockRule, create_backbone
from spnet.data import Augmentation, Dataset, Split, augment
from spnet.inference import calibrate as calibration
from spnet.inference.calibrate import calibrate, mean_cost, reestimate_batch_norm, spread, spread_indices
from spnet.inference.evaluate import collect, evaluate, fixed_path, path_controls, summarise
from spnet.network.path_statistics import evolution_kl
from spnet.routers import PooledMLP, Router, State
from spnet.runs.forms import to_json
from spnet.training import monitor as monitoring
from spnet.training.finish import at_budget
from spnet.training.monitor import Monitor


def pixels(count: int, seed: int = 0) -> Split:
    """Random images and labels."""
    generator = torch.Generator().manual_seed(seed)
    shades = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)
    return Split(shades, torch.randint(0, 10, (count,), generator=generator))


def network(method: str = "spnet", seed: int = 0, **config) -> DynamicNetwork:
    return lively(create_model("resnet8", method, in_channels=1, image_size=8, seed=seed, **config), seed)


def three_options() -> DynamicNetwork:
    backbone = create_backbone("resnet8", num_classes=10, input_shape=SHAPE, skip_rule=BlockRule(options=3))
    return lively(DynamicNetwork(backbone, PooledMLP(backbone.input_widths, [3] * 3, [True] * 3, hidden=8)))


# Matching the cost


@pytest.mark.parametrize("budget", [0.4, 0.6, 0.75, 0.9])
def test_calibration_meets_a_budget_on_training_images(trained: Path, digits: Dataset, budget: float):
    net = spnet.load(trained)
    reached = calibrate(net, digits.train, budget)
    assert reached == pytest.approx(budget, rel=0.02)
    assert mean_cost(net, digits.train) == pytest.approx(reached)
    assert mean_cost(net, digits.train, batch_size=5) == pytest.approx(reached, rel=1e-3)


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8])
def test_calibration_knows_any_number_of_options(budget: float):
    assert calibrate(three_options(), pixels(100), budget) == pytest.approx(budget, rel=0.02)


def test_calibration_needs_no_label():
    net, split = network(), pixels(60)
    calibrate(net, split, 0.6)
    shift = net.decision_shift.clone()
    calibrate(net, Split(split.images, torch.zeros_like(split.labels)), 0.6)
    assert torch.equal(net.decision_shift, shift)


def test_a_budget_takes_few_passes(monkeypatch: pytest.MonkeyPatch):
    net, split, passes = network(), pixels(200), []
    count = calibration.mean_cost
    monkeypatch.setattr(calibration, "mean_cost", lambda *a, **k: passes.append(1) or count(*a, **k))
    for budget in (0.5, 0.6):
        passes.clear()
        assert calibrate(net, split, budget, tolerance=0.01) == pytest.approx(budget, rel=0.01)
        assert len(passes) <= 8, budget  # halving from the ends took fifteen


def test_budgets_out_of_reach():
    net = network()
    for budget in (0.01, 1.4):
        net.decision_shift.fill_(3.0)
        with pytest.raises(UserError, match=r"out of reach: this network costs 0\.\d+ to 1\.\d+ of its static cost"):
            calibrate(net, pixels(30), budget)
        assert net.decision_shift == 3  # a network keeps the threshold it came with


@pytest.mark.parametrize("net", [network("static"), network("convnet-aig", target=1.0)], ids=["static", "target 1"])
def test_a_network_without_decisions_has_no_budget(net: DynamicNetwork):
    with pytest.raises(UserError, match="static network has no decisions"):
        calibrate(net, pixels(4), 0.6)
    with pytest.raises(UserError, match="static network has no decisions"):
        Engine(net).calibrate(pixels(4).images, 0.6)


def test_a_missed_budget_does_not_throw_a_training_away():
    figures = at_budget(network(), pixels(30), pixels(10, seed=1), 0.01)
    assert figures.budget == 0.01 and "out of reach" in figures.missed and not figures.met
    assert at_budget(network(), pixels(60), pixels(10, seed=1), 0.6).calibration_cost == pytest.approx(0.6, rel=0.02)


def test_the_threshold_is_saved_with_the_network(tmp_path: Path):
    from spnet.runs.folder import load_weights, save_network

    net = network()
    calibrate(net, pixels(60), 0.6)
    save_network(tmp_path, net)
    again = network(seed=1)
    load_weights(again, tmp_path / "model.safetensors")
    assert net.decision_shift != 0 and torch.equal(again.decision_shift, net.decision_shift)


@settings(deadline=None)
@given(size=st.integers(0, 300), count=st.integers(0, 300))
def test_samples_are_spread_over_the_whole_set(size: int, count: int):
    """A folder's images lie sorted by class: its first images would be of one."""
    chosen = spread_indices(size, count).tolist()
    assert len(chosen) == len(set(chosen)) == min(size, count) and chosen == sorted(chosen)
    if chosen:
        gaps = {b - a for a, b in zip(chosen, [*chosen[1:], size], strict=True)}
        assert chosen[0] == 0 and max(gaps) - min(gaps) <= 1


def test_a_spread_sample_of_a_sorted_set_has_every_class():
    split = Split(torch.zeros(100, 1, 2, 2, dtype=torch.uint8), torch.arange(100) // 10)
    assert spread(split, 20).labels.bincount().tolist() == [2] * 10
    assert len(spread(split, 1000)) == 100


def two_costs() -> DynamicNetwork:
    """Every image is decided alike, so that all flip at one threshold: nothing lies between two costs."""
    net = network("dynamic")
    for name, parameter in net.named_parameters():
        if name.endswith("fc2.weight"):
            parameter.data.zero_()
        elif name.endswith("fc2.bias"):
            parameter.data.copy_(torch.tensor([0.1, 2.0]))
    return net


def test_a_budget_that_no_threshold_comes_near_is_missed():
    net = two_costs()
    with pytest.raises(UserError, match=r"budget 0\.6 is out of reach: the nearest cost a threshold gives is"):
        calibrate(net, pixels(40), 0.6)
    assert net.decision_shift == 0
    assert at_budget(net, pixels(40), pixels(20), 0.6).missed


@pytest.mark.parametrize("wrong", ["size", "interrupt", "empty", "nan"])
def test_a_calibration_that_fails_leaves_the_threshold_alone(wrong: str):
    net, split = network(), pixels(40)
    net.decision_shift.fill_(0.25)

    def interrupt(images: Tensor) -> Trace:
        if net.decision_shift != 0:
            raise KeyboardInterrupt
        return net(images)

    small = Split(split.images[:, :, 1:], split.labels)
    given = {"size": small, "empty": split.select(torch.arange(0))}.get(wrong, split)
    with pytest.raises((UserError, KeyboardInterrupt)):
        budget = float("nan") if wrong == "nan" else 0.6
        calibrate(net, given, budget, forward=interrupt if wrong == "interrupt" else None)
    assert net.decision_shift == 0.25


# Batch-norm statistics under test-time paths


def test_reestimation_changes_only_the_backbones_statistics():
    net, split = network(), pixels(64)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    momenta = [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    reestimate_batch_norm(net, split, batch_size=32)
    for name, value in net.state_dict().items():
        statistic = name.startswith("backbone.") and name.split(".")[-1].startswith(("running_", "num_batches"))
        assert torch.equal(value, before[name]) != statistic, name
    assert not any(module.training for module in net.modules())
    assert [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)] == momenta


def test_reestimation_reads_no_label():
    split = pixels(64)
    states = []
    for labels in (split.labels, torch.zeros_like(split.labels)):
        net = network()
        reestimate_batch_norm(net, Split(split.images, labels), batch_size=32)
        states.append(net.state_dict())
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_reestimation_is_the_mean_over_batches():
    net, split = network(), pixels(64)
    conv = net.backbone.stem[0]  # type: ignore[index]
    with torch.no_grad():
        parts = [conv(net.prepare(part)) for part in split.images.split(32)]
    reestimate_batch_norm(net, split, batch_size=32)
    norm = net.backbone.stem[1]  # type: ignore[index]
    assert torch.allclose(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in parts]).mean(0), atol=1e-5)
    assert torch.allclose(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in parts]).mean(0), rtol=1e-4)


def test_reestimation_weighs_images_not_batches():
    """A last batch of one image counts as one image: the statistics are those of one batch, all but exactly."""
    split = pixels(33)
    states = []
    for batch_size in (33, 32):
        net = network()
        reestimate_batch_norm(net, split, batch_size=batch_size)
        states.append(net.backbone.stem[1])  # type: ignore[index]
    whole, parted = states
    assert torch.allclose(parted.running_mean, whole.running_mean, atol=1e-5)
    assert torch.allclose(parted.running_var, whole.running_var, rtol=0.03)


def test_reestimation_sees_images_as_training_showed_them():
    split, augmentation = pixels(64), Augmentation(pad=3, flip=False)

    def statistics(split: Split, augmentation: Augmentation | None) -> Tensor:
        net = network()
        reestimate_batch_norm(net, split, augmentation, batch_size=32)
        return net.backbone.stem[1].running_mean.clone()  # type: ignore[index]

    generator = torch.Generator().manual_seed(0)
    shifted = torch.cat([augment(part, augmentation, generator) for part in split.images.split(32)])
    found = statistics(split, augmentation)
    assert torch.equal(found, statistics(Split(shifted, split.labels), None))
    assert not torch.equal(found, statistics(split, None))
    assert torch.equal(found, statistics(split, augmentation))


# Controls


def test_one_path_for_all_makes_the_controls_equal():
    net, split = network(), pixels(50)
    for shift in (64.0, -64.0):
        net.decision_shift.fill_(shift)
        figures = evaluate(net, split)
        assert figures.distinct_paths == 1
        assert figures.accuracy_shuffled_paths == figures.accuracy_fixed_path == figures.accuracy
        assert figures.cost_ratio_fixed_path == figures.cost_ratio


def test_shuffled_paths_are_the_same_paths_and_nobody_keeps_its_own(monkeypatch: pytest.MonkeyPatch):
    net, split = network(), pixels(40)
    decisions = torch.arange(40)[:, None].bitwise_right_shift(torch.arange(3)) % 2  # neighbours differ
    given: list[Tensor] = []
    forward_path = net.forward_path

    def spied(x: Tensor, d: Tensor, **options):
        given.append(d)
        return forward_path(x, d, **options)

    monkeypatch.setattr(net, "forward_path", spied)
    path_controls(net, split, decisions, batch_size=16)
    shuffled, fixed = torch.cat(given[:3]), torch.cat(given[3:])
    assert sorted(shuffled.tolist()) == sorted(decisions.tolist())
    assert not torch.equal(shuffled, decisions)
    assert (fixed == fixed[0]).all()


def test_the_shuffle_is_one_cycle(monkeypatch: pytest.MonkeyPatch):
    """With every path different, none stays where it was."""
    net = lively(create_model("resnet20", "convnet-aig", in_channels=1, image_size=8))
    decisions = torch.arange(64)[:, None].bitwise_right_shift(torch.arange(9)) % 2
    given: list[Tensor] = []
    monkeypatch.setattr(net, "forward_path", lambda x, d: (given.append(d), net(x))[1])
    path_controls(net, pixels(64), decisions)
    assert not (given[0] == decisions).all(1).any()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), options=st.sampled_from([2, 3]))
def test_the_fixed_path_costs_about_the_mean(seed: int, options: int):
    net = network("convnet-aig") if options == 2 else three_options()
    decisions = paths(net, 20, seed)
    exits = torch.full((20,), 2)
    goal = net.macs_of(decisions, exits, routed=True, heads=False).double().mean()
    path = fixed_path(net, decisions)
    cost = net.macs_of(path[None], exits[:1], routed=True, heads=False)
    assert abs(cost - goal) <= max(block.macs[-1] for block in net.blocks) / 2


@pytest.mark.parametrize("path", [[0, 0, 0], [2, 2, 2], [1, 1, 1], [2, 0, 1]])
def test_the_fixed_path_of_unanimous_images_is_theirs(path: list[int]):
    assert fixed_path(three_options(), torch.tensor([path] * 5)).tolist() == path


def test_the_fixed_path_prefers_what_most_images_run():
    net = network("convnet-aig")
    decisions = torch.tensor([[1, 0, 0]] * 8 + [[0, 1, 0]] * 2)
    assert fixed_path(net, decisions).tolist() == [1, 0, 0]


def test_ungated_blocks_stay_on_the_fixed_path():
    net = network("convnet-aig", targets=(0.5, 1.0, 0.5))
    assert fixed_path(net, torch.tensor([[0, 1, 0]] * 3)).tolist() == [0, 1, 0]


def test_a_static_network_is_its_own_control():
    figures = evaluate(network("static"), pixels(20))
    assert figures.accuracy_shuffled_paths == figures.accuracy_fixed_path == figures.accuracy
    assert figures.cost_ratio == figures.execution_rate == 1.0


# Figures


def test_figures_and_units():
    net, split = network(), pixels(37)
    figures, trace = evaluate(net, split, batch_size=10), net(split.images)
    assert figures.n == 37 and figures.macs_static == net.static_macs
    assert figures.accuracy == pytest.approx(100 * (trace.logits.argmax(1) == split.labels).float().mean().item())
    assert figures.macs_mean == pytest.approx(trace.macs.double().mean().item())
    assert figures.gflops_mean == pytest.approx(2e-9 * figures.macs_mean)
    assert figures.cost_ratio == pytest.approx(figures.macs_mean / figures.macs_static)
    assert figures.execution_rate == pytest.approx(trace.decisions.float().mean().item())
    assert len(figures.execution_rate_per_block) == 3
    assert figures.distinct_paths == len(trace.decisions.unique(dim=0))
    assert len(figures.stage_accuracy) == 3 and figures.stage_accuracy[-1] == figures.accuracy
    assert figures.images_per_second > 0
    json.dumps(to_json(figures), allow_nan=False)


def test_feature_evolution_is_read_from_the_stages_own_features():
    """Not from the aligned ones, whose learned map other methods do not have; over all images, whatever the batch."""
    net, split = network(evolution_form="stage"), pixels(37)
    with torch.no_grad():
        trace = net(split.images)
    expected = evolution_kl(trace.stage_features).item()
    found = summarise(collect(net, split, batch_size=10), net.static_macs).evolution_kl
    assert found == pytest.approx(expected, rel=1e-5)
    assert abs(evolution_kl(trace.aligned_features).item() - expected) > 0.01 * expected > 0


def test_evaluation_is_deterministic_and_independent_of_the_batch():
    net, split = network(), pixels(40)
    first, again, others = evaluate(net, split), evaluate(net, split), evaluate(net, split, batch_size=7)
    assert replace(first, images_per_second=0) == replace(again, images_per_second=0)
    for name in ("stage_accuracy", "execution_rate_per_block", "macs_mean", "evolution_kl", "accuracy_shuffled_paths"):
        assert getattr(first, name) == pytest.approx(getattr(others, name), rel=1e-5), name


def test_early_exit_is_read_from_the_images_that_got_there():
    net, split = lively(create_model("resnet8", "spnet", in_channels=1, image_size=8)), pixels(30)
    with torch.no_grad():
        whole = net(split.images)
    confidence = float(whole.stage_logits[0].softmax(1).amax(1).median())
    engine = Engine(net, "gathered", exit_confidence=confidence)
    figures, trace = evaluate(net, split, forward=engine), engine(split.images)
    reached = trace.exit_stage >= 1
    assert 0 < int(reached.sum()) < 30
    right = whole.stage_logits[1].argmax(1) == split.labels
    assert figures.stage_accuracy[1] == pytest.approx(100 * right[reached].float().mean().item())
    assert figures.stage_accuracy[-1] == figures.accuracy
    assert figures.macs_mean < whole.macs.double().mean().item()
    results = collect(Engine(net, "gathered", exit_confidence=0.0), split)
    assert summarise(results, net.static_macs).evolution_kl == 0  # nobody saw all stages
    json.dumps(to_json(summarise(results, net.static_macs)), allow_nan=False)


@pytest.mark.parametrize("exits", [("stage2",), ("stage1",), ("stage1", "stage2")])
def test_accuracies_stand_at_the_stages_that_have_a_classifier(exits: tuple[str, ...]):
    net = lively(create_model("resnet8", "spnet", in_channels=1, image_size=8, exits=exits))
    assert net.classified_stages == (*(int(name[-1]) - 1 for name in exits), 2)
    split = pixels(30)
    with torch.no_grad():
        trace = net(split.images)
    found = list(evaluate(net, split).stage_accuracy)
    expected: list = [pytest.approx(math.nan, nan_ok=True)] * 3
    for stage, logits in zip(net.classified_stages, trace.stage_logits, strict=True):
        expected[stage] = pytest.approx(100 * (logits.argmax(1) == split.labels).float().mean().item())
    assert found == expected


def test_a_late_exit_is_read_from_the_images_that_got_there():
    """The only head stands after the second stage: whoever leaves there has reached it, and so has everyone else."""
    net, split = lively(create_model("resnet8", "spnet", in_channels=1, image_size=8, exits=("stage2",))), pixels(30)
    with torch.no_grad():
        whole = net(split.images)
    confidence = float(whole.stage_logits[0].softmax(1).amax(1).median())
    figures = evaluate(net, split, forward=Engine(net, "gathered", exit_confidence=confidence))
    right = whole.stage_logits[0].argmax(1) == split.labels
    assert math.isnan(figures.stage_accuracy[0])
    assert figures.stage_accuracy[1] == pytest.approx(100 * right.float().mean().item())


def test_one_image_is_a_set():
    figures = evaluate(network(), pixels(1))
    assert figures.n == 1 and figures.accuracy in (0.0, 100.0)


def test_costs_in_training_and_at_test_stand_side_by_side(trained: Path):
    """The rate under Gumbel noise is not that of the arg-max: every row and the result hold both."""
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    net = spnet.load(trained)
    for row in rows[1:]:
        assert row["train_macs_mean"] > 0 and row["cost_ratio"] == pytest.approx(row["macs_mean"] / net.static_macs)
    result = json.loads((trained / "result.json").read_text())
    assert {"train_macs_mean", "cost_ratio"} <= set(result["end_of_training"])


def test_full_precision_of_forced_and_free_paths():
    """Feeding a network its own decisions back changes nothing."""
    net, x = network(), images(12)
    trace = net(x)
    assert torch.equal(net.forward_path(x, trace.decisions).logits, trace.logits)
    assert torch.equal(net.forward_path(x, full_path(net)).macs, net.forward_path(x, full_path(net)).macs)


# What is watched each epoch


class Painted(Router):
    """Reads its logits off the image: block i runs where the top row's pixel i is brighter than 128."""

    def __init__(self, gated: tuple[bool, ...]) -> None:
        super().__init__()
        self.gated = gated
        self.macs = (0,) * len(gated)

    def begin(self, image: Tensor) -> State:
        return (255 * image[:, 0, 0] - 128,)

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        return torch.stack([torch.zeros(len(x)), state[0][:, i]], 1), state


def painted() -> tuple[DynamicNetwork, Split]:
    """Six blocks, of which 0 and 3 have no router, and four images: at brightness 128, blocks 1, 2, 4 and 5 decide
    1100, 0101, 0100 and 1100."""
    backbone = create_backbone("resnet14", num_classes=10, input_shape=SHAPE)
    net = DynamicNetwork(backbone, Painted((False, True, True, False, True, True)))
    shades = torch.zeros(4, *SHAPE, dtype=torch.uint8)
    columns = {1: (200, 100, 40, 150), 2: (250,) * 4, 3: (255,) * 4, 4: (10,) * 4, 5: (90, 140, 100, 30), 6: (255,) * 4}
    for pixel, column in columns.items():
        shades[:, 0, 0, pixel] = torch.tensor(column, dtype=torch.uint8)
    return net, Split(shades, torch.arange(4))


def test_flips_are_counted_from_look_to_look():
    """Sixteen decisions. At 96, images 1 and 2 run one block more; at 228, block 2 alone runs, five decisions fewer.
    The shift is the threshold's: blocks without a router, whose decisions cannot flip, would dilute the share."""
    net, split = painted()
    monitor = Monitor(split, Augmentation(0, False), seed=0, held_out=False)
    looks = []
    for shift in (0.0, 32.0, -100.0, -100.0):
        net.decision_shift.fill_(shift)
        looks.append(monitor.look(net))
    assert [look.get("flips") for look in looks] == [None, 2 / 16, 5 / 16, 0.0]
    assert [look["always_run"] for look in looks] == [(2,)] * 4  # indices among all blocks
    assert [look["always_skipped"] for look in looks] == [(4,), (4,), (1, 4, 5), (1, 4, 5)]
    assert [look["distinct_paths"] for look in looks] == [3, 3, 1, 1]
    assert looks[0]["execution_rate_per_block"] == (1.0, 0.5, 1.0, 1.0, 0.0, 0.25)
    assert all(look["path_agreement"] == 1 for look in looks)  # both views are alike


def test_agreement_is_that_of_two_views_of_an_image():
    """A mirrored image decides 1011, 1111, 1011 and 1011: with its plain view, 1, 2, 0 and 1 of four blocks agree."""
    net, split = painted()
    monitor = Monitor(split, Augmentation(0, True), seed=0, held_out=False)
    mirrored = (monitor.second_view != split.images).flatten(1).any(1)
    assert 0 < mirrored.sum() < 4
    expected = torch.where(mirrored, torch.tensor([1, 2, 0, 1]), 4).sum().item() / 16
    assert monitor.look(net)["path_agreement"] == pytest.approx(expected)


def test_flips_are_of_the_probe_and_collapse_is_of_all_images(monkeypatch: pytest.MonkeyPatch):
    """Of the images 0 and 2 only the latter flips once; both skip block 5, which image 1 runs."""
    monkeypatch.setattr(monitoring, "PROBE", 2)
    net, split = painted()
    monitor = Monitor(split, Augmentation(0, False), seed=0, held_out=False)
    assert monitor.look(net)["always_skipped"] == (4,)
    net.decision_shift.fill_(32.0)
    look = monitor.look(net)
    assert look["flips"] == 1 / 8 and look["path_agreement"] == 1
