"""The public door: every name is typed and explained by an example that runs; train, evaluate, calibrate, export."""

import doctest
import inspect
import json
import sys
import types
from pathlib import Path

import pytest
import torch
import torchvision
from tiny import part
from torch import Tensor, nn

import spnet
from spnet import data
from spnet.backbones.adapters.parts import Unit
from spnet.errors import NoEffectWarning, UserError
from spnet.inference.evaluate import evaluate as evaluate_network
from spnet.runs.config import RunConfig
from spnet.training.fit import fit

EXPLAINED = [name for name in spnet.__all__ if name not in ("losses", "__version__") and "Warning" not in name]
EXAMPLES = [name for name in EXPLAINED if not name.endswith("Error")]
QUICK = {"epochs": 1, "batch_size": 32, "validation": 0.0, "precision": "fp32"}


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a finished run in runs/digits."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(trained)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_every_public_name_runs(name: str, here: Path) -> None:
    names = {"spnet": spnet, "torch": torch, "torchvision": torchvision, "Unit": Unit}
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(getattr(spnet, name)) or "", names, name, None, 0)
    assert found.examples, f"{name} has no example"
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(found, out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_public_name_is_typed_and_explained(name: str) -> None:
    thing = getattr(spnet, name)
    assert len((inspect.getdoc(thing) or "").split()) > 5
    if inspect.isfunction(thing):
        for parameter in inspect.signature(thing).parameters.values():
            assert parameter.annotation is not parameter.empty, parameter.name
        assert inspect.signature(thing).return_annotation is not inspect.Signature.empty


# --- a run as one object


def test_a_run_knows_what_its_folder_holds(trained: Path, digits: data.Dataset) -> None:
    run = spnet.Run(trained)
    assert run.config.method == "spnet" and run.classes == digits.classes and run.finished
    assert run.cost == run.result.final.cost_ratio and [row.epoch for row in run.rows] == [1, 2, 3]
    record = json.loads((trained / "result.json").read_text())
    assert run.result.final.accuracy == record["final"]["accuracy"] and run.config.hash == record["hash"]
    assert run.resume_state()["epoch"] == 3 and len(run.data().test) == 450
    net = run.network()
    assert not net.training and net.classes == run.classes and net is not run.network()
    assert spnet.Run(run).folder == trained and "resnet8" in repr(run)


def test_the_settings_of_a_run_are_typed_and_nested() -> None:
    text = RunConfig("convnet-aig", "spnet", "resnet8", "digits", {"lookahead": "6", "targets": "0.5,1", "epochs": "3"})
    assert text.settings == {"lookahead": 6, "targets": (0.5, 1.0), "epochs": 3}
    assert (text.training.epochs, text.method_config.lookahead) == (3, 6)  # type: ignore[attr-defined]
    (wrapper,) = text.wrapper_configs
    assert type(wrapper).__name__ == "SPNetConfig" and text.parts == (text.training, text.method_config, wrapper)
    same = RunConfig("convnet-aig", "spnet", "resnet8", "digits", {"lookahead": 6, "targets": [0.5, 1], "epochs": 3})
    assert text == same and text.hash == same.hash and RunConfig.from_json(text.to_json()).hash == text.hash


def test_a_run_that_is_none_or_not_finished_is_told_in_a_line(trained: Path, tmp_path: Path) -> None:
    for wrong in ("nowhere", tmp_path / "nowhere", tmp_path, 3):
        with pytest.raises(UserError):
            spnet.Run(wrong)  # type: ignore[arg-type]
    (tmp_path / "config.json").write_bytes((trained / "config.json").read_bytes())
    run = spnet.Run(tmp_path)
    assert not run.finished and run.cost is None and run.rows == []
    with pytest.raises(UserError, match=r"is not finished: it has no result\.json"):
        run.result  # noqa: B018
    (tmp_path / "result.json").write_text('{"final": {"cost_ratio": "much"}}')
    assert spnet.Run(tmp_path).cost is None
    with pytest.raises(UserError, match="'final/cost_ratio' is of the wrong kind"):
        spnet.Run(tmp_path).result  # noqa: B018


# --- training


def test_training_by_name_is_what_the_command_does(digits: data.Dataset, tmp_path: Path) -> None:
    run = spnet.train("resnet8", digits, tmp_path / "ours", method="dynamic", seed=3, **QUICK)
    config = RunConfig("dynamic", "", "resnet8", "digits", {**QUICK, "seed": 3})
    fit(config, digits, tmp_path / "theirs")
    assert run.config.hash == config.hash and run.finished
    ours, theirs = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", "theirs"))
    assert ours == theirs


def test_a_run_goes_on_where_it_was_left(digits: data.Dataset, tmp_path: Path) -> None:
    settings = {**QUICK, "epochs": 2}
    whole = spnet.train("resnet8", digits, tmp_path / "whole", **settings)

    def stop(row: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spnet.train("resnet8", digits, tmp_path / "parts", report=stop, **settings)
    half = spnet.Run(tmp_path / "parts")
    assert not half.finished
    with pytest.raises(UserError, match="goes on with its own settings: leave out method, epochs"):
        spnet.train(half, digits, method="spnet", epochs=3)
    assert spnet.train(half, digits).finished
    ours, theirs = ((run.folder / "model.safetensors").read_bytes() for run in (whole, half))
    assert ours == theirs


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.residual = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.residual(x))


def own(num_classes: int = 10) -> nn.Sequential:
    body = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), *(Layer() for _ in range(3))]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))


def wider(num_classes: int = 10) -> nn.Sequential:
    return nn.Sequential(*own(num_classes)[:-1], nn.Linear(8, num_classes, bias=False))


def sharper(num_classes: int = 10) -> nn.Sequential:
    """The same weights, another function."""

    class Half(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * super().forward(x)

    net = own(num_classes)
    net[1] = Half()
    return net


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> str:
    spnet.register_adapter(Layer, block=lambda block: Unit(block.residual, tail=nn.ReLU()))
    module = types.ModuleType("my_networks")
    for function in (own, wider, sharper):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "my_networks", module)
    return "my_networks:own"


def test_a_network_of_ones_own_is_trained_from_its_weights_and_loaded_by_name(
    mine: str, digits: data.Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    net = spnet.make_dynamic(own(), "dynamic", example=torch.randn(2, 1, 8, 8), target=0.6)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    said: list[str] = []
    run = spnet.train(net, digits, tmp_path / "run", backbone=mine, note=said.append, lr=1e-9, **QUICK)
    assert "from the network given: all weights" in said and run.config.method_config.target == 0.6  # type: ignore[attr-defined]
    assert run.facts.started_from is not None and run.facts.started_from.name == "a network"
    loaded = run.network().state_dict()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), "the network given stays as it is"
        if name.endswith("weight"):
            torch.testing.assert_close(loaded[name], value, atol=1e-5, rtol=0)
    assert spnet.evaluate(run, digits.test).n == 40


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "a network of your own is loaded again by name: add backbone="),
        ({"backbone": "my_networks:wider"}, r"builds another network than the one given \(backbone\.7\.bias"),
        ({"backbone": "my_networks:sharper"}, r"builds another network than the one given \(its logits differs"),
        ({"backbone": "resnet8"}, "builds another network than the one given"),
        ({"backbone": "no_such_module:net"}, "cannot import no_such_module"),
        ({"backbone": "my_networks:own", "target": 0.5}, "'target' belongs to the method: choose it when the network"),
        ({"backbone": "my_networks:own", "method": "spnet"}, "leave out method, wrapper and init"),
        ({"backbone": "my_networks:own", "epoch": 3}, "unknown setting 'epoch'.*Did you mean 'epochs'"),
    ],
)
def test_a_network_that_cannot_be_built_again_is_refused_before_anything_is_written(
    mine: str, digits: data.Dataset, tmp_path: Path, given: dict, says: str
) -> None:
    net = spnet.make_dynamic(own(), "dynamic", example=torch.randn(2, 1, 8, 8))
    with pytest.raises(UserError, match=says) as refused:
        spnet.train(net, digits, tmp_path / "run", **{**QUICK, **given})
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_what_train_refuses(digits: data.Dataset, tmp_path: Path, mine: str) -> None:
    few = spnet.make_dynamic(own(7), "dynamic", example=torch.randn(2, 1, 8, 8))
    bare = type(few)(few.backbone)
    for network, where, more, says in (
        ("resnet8", None, {}, "training needs data"),
        ("resnet8", digits.test, {}, "data are a name"),
        ("resnet9", digits, {}, "unknown backbone 'resnet9'"),
        ("resnet8", digits, {"backbone": "resnet8"}, "its name is the first argument"),
        (few, digits, {"backbone": mine}, r"make it with num_classes=10"),
        (bare, digits, {}, "make_dynamic and create_model, which know their method"),
    ):
        with pytest.raises(UserError, match=says):
            spnet.train(network, where, tmp_path / "run", **{**QUICK, **more})  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_setting_without_effect_warns_once(digits: data.Dataset, tmp_path: Path) -> None:
    with pytest.warns(NoEffectWarning, match="'flip' has no effect") as told:
        spnet.train("resnet8", digits, tmp_path / "run", method="static", augment=False, flip=True, **QUICK)
    assert len(told) == 1


# --- evaluation, calibration, export


def test_evaluate_is_the_evaluation_of_the_network(trained: Path, digits: data.Dataset) -> None:
    run = spnet.Run(trained)
    net = run.network()
    expected = evaluate_network(run.network(), digits.test)
    for found in (spnet.evaluate(run, digits), spnet.evaluate(net, digits.test), spnet.evaluate(trained, digits.test)):
        assert (found.accuracy, found.macs_mean, found.accuracy_fixed_path) == (
            expected.accuracy,
            expected.macs_mean,
            expected.accuracy_fixed_path,
        )
    shift = float(net.decision_shift)
    at_budget = spnet.evaluate(net, part(data.load("digits"), train=200, test=40), budget=0.9)
    assert at_budget.budget == 0.9 and float(net.decision_shift) == shift
    with pytest.raises(UserError, match="a budget is met on training images"):
        spnet.evaluate(net, digits.test, budget=0.9)
    with pytest.raises(UserError, match="a network does not know its data"):
        spnet.evaluate(net)
    with pytest.raises(UserError, match=r"takes images of \(1, 8, 8\)"):
        spnet.evaluate(net, data.Split(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)))


def test_a_cascade_is_evaluated_with_its_members(trained: Path, digits: data.Dataset) -> None:
    small = spnet.create_model("resnet8", "static", in_channels=1, image_size=8, seed=0)
    figures = spnet.evaluate(spnet.Cascade([small, spnet.load(trained)], 0.0), digits.test, executor="gathered")
    assert [member.share for member in figures.members] == [1.0, 0.0]


def test_calibrate_moves_the_networks_threshold(trained: Path, digits: data.Dataset) -> None:
    net = spnet.load(trained)
    images = digits.train.images
    assert spnet.calibrate(net, images, 0.9) == spnet.calibrate(spnet.load(trained), digits.train, 0.9)
    assert float(net.decision_shift) != float(spnet.load(trained).decision_shift)
    for wrong in (images.float(), images[:, :, :4]):
        with pytest.raises(UserError):
            spnet.calibrate(net, wrong, 0.9)
    with pytest.raises(UserError, match="calibrate changes a network"):
        spnet.calibrate(spnet.Run(trained), "digits", 0.9)  # type: ignore[arg-type]


def test_export_keeps_the_names_of_the_classes(trained: Path, digits: data.Dataset, tmp_path: Path) -> None:
    exported = spnet.export(spnet.Run(trained), tmp_path / "a.onnx", form="path", data=digits)
    assert exported.form == "path" and exported.real == 40 and (tmp_path / "a.onnx").is_file()
    assert spnet.export(spnet.load(trained), tmp_path / "b.onnx", form="path").real == 0
