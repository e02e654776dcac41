"""Sandwich training: which paths a step runs, what each is taught, how often an image passes, what it composes with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cases import CASES, Case
from tiny import SHAPE, empty_path, full_path, images, lively, phase_named, small_batch

import spnet
from spnet.build import build_network, create_method
from spnet.cli import main
from spnet.data import Dataset
from spnet.losses import self_distillation
from spnet.methods import Batch, Method, Step, composition
from spnet.methods.sandwich import Sandwich, SandwichConfig
from spnet.network.dynamic import DynamicNetwork
from spnet.network.sampling import Argmax
from spnet.reproduction.contenders import sections
from spnet.reproduction.plan import Plan, at_equal_passes, student_passes
from spnet.reproduction.scales import SCALES
from spnet.runs.config import RunConfig, TrainingConfig
from spnet.runs.record import RunResult, write_result
from spnet.settings import names
from spnet.training.fit import fit


def built(method: str = "sandwich", wrapper: str = "", **settings: object) -> tuple[Method, DynamicNetwork]:
    made = create_method(method, wrapper, settings)
    net = build_network(made, "resnet8", num_classes=10, input_shape=SHAPE, seed=0)
    made.attach(net)
    return made, net


def step(method: Method, net: DynamicNetwork, batch: Batch) -> spnet.methods.Losses:
    """A step by the test rule: nothing is left to chance."""
    phase = replace(next(phase for phase in method.phases(4) if not phase.warmup), sampler=Argmax())
    return phase.objective(net.eval(), batch, Step(phase))


def test_every_path_is_taught_what_it_should_be():
    batch = small_batch()
    method, net = built(weight_full=0.7, distill_share=0.25, third_path="cheapest", weight_third=0.4, hidden=4)
    losses = step(method, lively(net), batch)
    full = net.forward_path(batch.images, full_path(net)).logits
    routed = net.forward_path(batch.images, losses.trace.decisions).logits
    cheapest = net.forward_path(batch.images, empty_path(net)).logits
    for other in (full_path(net), empty_path(net)):
        assert (losses.trace.decisions != other).any(1).all()
    expected = {
        "classification": 0.75 * F.cross_entropy(routed, batch.labels),
        "full": 0.7 * F.cross_entropy(full, batch.labels),
        "distillation": 0.25 * self_distillation(routed, full),
        "third": 0.4 * self_distillation(cheapest, full),
    }
    for name, value in expected.items():
        assert losses.terms[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert losses.watched["third"].item() == pytest.approx(expected["third"].item() / 0.4, rel=1e-4)
    assert "rate" in losses.terms  # the inner method's own


def test_where_every_block_runs_the_paths_agree():
    """The routers start open: the routed path is the full one, and learns from the labels alone."""
    method, net = built()
    losses = step(method, net, small_batch())
    assert losses.watched["distillation"].item() == pytest.approx(0, abs=1e-7)
    assert losses.terms["full"].item() == pytest.approx(2 * losses.terms["classification"].item(), rel=1e-5)


def test_weights_of_nothing_leave_their_terms_out():
    method, net = built(weight_full=0.0, distill_share=0.0, third_path="random")
    losses = step(method, net, small_batch())
    assert {"full", "distillation"} <= set(losses.watched) and not {"full", "distillation"} & set(losses.terms)
    assert "third" in losses.terms


def test_the_paths_other_than_the_routed_one_move_no_router():
    method, net = built(third_path="random")
    losses = step(method, net, small_batch())
    router = [p for name, p in net.named_parameters() if name.startswith("router.")]
    for name in ("full", "third"):
        slopes = torch.autograd.grad(losses.terms[name], router, allow_unused=True, retain_graph=True)
        assert all(slope is None for slope in slopes), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_phase_says_how_often_it_passes_an_image(case: Case, monkeypatch: pytest.MonkeyPatch):
    """Passes through the network with a gradient, counted."""
    method = create_method(case.method, case.wrapper, case.settings)
    net = build_network(method, "resnet8", num_classes=10, input_shape=SHAPE, seed=0)
    method.attach(net)
    seen: list[int] = []
    net.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])) if torch.is_grad_enabled() else None)
    for phase in method.phases(case.epochs):
        seen.clear()
        batch = Batch(images(4 * phase.copies), torch.arange(4).repeat_interleave(phase.copies), phase.copies)
        phase.objective(net.train(), batch, Step(phase))
        assert sum(seen) == 4 * phase.passes, phase.name


def test_passes_of_a_training_count_its_warm_ups():
    shares = {"static_share": 0.34}
    assert create_method("dynamic", "", shares).passes(6) == 6
    assert create_method("codinet", "", shares).passes(6) == 2 + 4 * 2
    assert create_method("sandwich", "", shares).passes(6) == 2 + 4 * 2
    assert create_method("codinet", "sandwich", {**shares, "third_path": "random"}).passes(6) == 2 + 4 * 2 * 3
    method = create_method("sandwich", "", shares)
    assert phase_named(method, "static").passes == 1 and phase_named(method, "dynamic").passes == 2


def test_a_record_says_its_passes_and_old_ones_are_read(
    digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = {"epochs": 3, "static_share": 0.3, "batch_size": 32, "validation": 0.0}
    run = RunConfig("sandwich", "", "resnet8", "digits", settings)
    outcome = fit(run, digits, tmp_path / "run")
    assert [row.student_passes for row in outcome.rows] == [64, 128, 128]
    result = outcome.result
    assert result is not None and result.passes == result.student_passes == 320 and result.train_images == 192
    assert main(["eval", str(tmp_path / "run")]) == 0
    assert "trained             3 epochs, 320 images passed through the student" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    assert "320 student passes" in (tmp_path / "page.html").read_text(encoding="utf-8")
    write_result(tmp_path / "run" / "result.json", replace(result, student_passes=0))  # as it was before
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["student_passes"] == 192
    assert RunResult().passes is None


def test_wrappers_compose_from_inside_out():
    method = create_method("convnet-aig", "spnet+sandwich", {"distill_share": 0.3, "path": 0.2, "target": 0.5})
    assert isinstance(method, Sandwich) and method.config.distill_share == 0.3
    assert method.inner.name == "spnet" and method.inner.config.path == 0.2  # type: ignore[attr-defined]
    assert method.inner.inner.name == "convnet-aig" and method.inner.inner.config.target == 0.5  # type: ignore[attr-defined]
    assert RunConfig("dynamic", "spnet+sandwich").label == "dynamic + spnet + sandwich"


def test_both_wrappers_teach_in_one_step():
    method, net = built("dynamic", "spnet+sandwich")
    losses = step(method, net, small_batch())
    assert {"classification", "rate", "path", "logits", "evolution", "full", "distillation"} == set(losses.terms)


@pytest.mark.parametrize(
    ("method", "wrapper", "told"),
    [
        ("dynamic", "sandwich+spnet", "goes around the others: name it last, as in spnet+sandwich"),
        ("dynamic", "spnet+spnet", "'spnet' is named twice"),
        ("dynamic", "spnet+", "unknown wrapper for 'with' ''"),
        ("dynamic", "spnet+sandwhich", "Did you mean 'sandwich'"),
        ("sandwich", "spnet", "--method dynamic --with spnet+sandwich"),
        ("spnet", "sandwich", "--method dynamic --with spnet+sandwich"),
    ],
)
def test_what_does_not_compose(method: str, wrapper: str, told: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(spnet.UserError) as error:
        composition(method, wrapper)
    assert told in str(error.value)
    assert main(["train", "--method", method, "--with", wrapper]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_a_message_proposes_can_be_done():
    with pytest.raises(spnet.UserError) as error:
        composition("sandwich", "spnet")
    words = str(error.value).rstrip(".").split()
    composition(words[words.index("--method") + 1], words[words.index("--with") + 1])


@pytest.mark.parametrize(
    "settings",
    [
        {"third_path": "cheap"},
        {"distill_share": 1.5},
        {"weight_full": -1.0},
        {"weight_third": 0.0},
        {"weight_full": 0.0, "distill_share": 0.0},
    ],
)
def test_settings_that_make_no_sense(settings: dict):
    with pytest.raises(spnet.UserError):
        SandwichConfig(**settings)


def test_a_network_that_skips_nothing_is_refused():
    cases: list[tuple[str, dict]] = [("static", {}), ("dynamic", {"target": 1.0})]
    for method, settings in cases:
        with pytest.raises(spnet.UserError, match="paths of different cost"):
            spnet.create_model("resnet8", method, wrapper="sandwich", **settings)


def test_no_setting_of_a_wrapper_is_one_of_a_method():
    own = {name: set(names(composition(name)[1][0].Config)) for name in ("spnet", "sandwich")}
    assert not own["spnet"] & own["sandwich"]
    for name in spnet.methods.shipped_methods():
        inner, wrappers = composition(name)
        taken = set(names(TrainingConfig)) | (set() if wrappers else set(names(inner.Config)))
        assert not taken & (own["spnet"] | own["sandwich"]), name


def test_names_of_recorded_runs_stay():
    assert RunConfig("spnet").hash == "317bf13ebc06"
    assert RunConfig("convnet-aig", "spnet", settings={"target": 0.5}).hash == "e220fb986c28"


def test_contenders_make_no_more_passes_than_the_static_network():
    plan = Plan(SCALES["full"], (0,))
    usual = plan.scale.base["epochs"]
    (section,) = sections(plan)
    lengths = {row.name: (row.runs[0].training.epochs, student_passes(row.runs[0])) for row in section.rows}
    assert lengths["static resnet20"] == lengths["spnet at 0.79"] == (usual, usual)
    for name in ("sandwich at 0.79", "dynamic + spnet + sandwich at 0.79", "codinet at 0.79"):
        epochs, passes = lengths[name]
        assert epochs < usual and usual - 1 <= passes <= usual, name
    run = plan.run("cifar10", "spnet")
    assert at_equal_passes(run).hash == run.hash  # a recorded run is found again
    assert "sandwich: 7 for 12" in section.notes[0]


def test_a_record_that_cannot_be_read_takes_nothing_from_an_evaluation(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, text in (("without", None), ("damaged", "{")):
        folder = shutil.copytree(trained, tmp_path / name)
        (folder / "result.json").unlink()
        if text is not None:
            (folder / "result.json").write_text(text)
        assert main(["eval", str(folder), "--json"]) == 0
        assert "student_passes" not in json.loads(capsys.readouterr().out)
