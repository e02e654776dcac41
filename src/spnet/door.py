"""What the command line does, as thin functions: train, evaluate, calibrate, export."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from spnet import data as datasets
from spnet.backbones import import_backbone
from spnet.data import Dataset, Source, Split
from spnet.errors import NoEffectWarning, UserError
from spnet.inference.calibrate import calibrate as calibrate_network
from spnet.inference.calibrate import spread
from spnet.inference.cascade import Cascade
from spnet.inference.cascade_engine import CascadeEngine
from spnet.inference.cascade_evaluate import evaluate_cascade
from spnet.inference.engine import Engine
from spnet.inference.evaluate import evaluate as evaluate_network
from spnet.network.dynamic import DynamicNetwork
from spnet.runs.config import RunConfig
from spnet.runs.open import run_folder
from spnet.runs.record import EpochRow, Evaluation
from spnet.runs.run import Run
from spnet.training.finish import CALIBRATION_IMAGES
from spnet.training.fit import fit

if TYPE_CHECKING:
    from spnet.inference.export.cascade_file import ExportedCascade
    from spnet.inference.export.onnx_file import Exported
    from spnet.inference.export.stages import ExportedStages

VERIFIED_ON = 64
"""Real images an export is compared on."""


def train(
    network: "str | DynamicNetwork | Run",
    data: str | Dataset | None = None,
    out: str | Path | None = None,
    *,
    method: str = "",
    wrapper: str = "",
    backbone: str = "",
    init: str | Path | None = None,
    time_limit: float | None = None,
    devices: int = 1,
    report: Callable[[EpochRow], None] = lambda row: None,
    note: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> Run:
    """Train a network into a run folder: after each epoch it can be resumed, at the end it is calibrated and evaluated.

    Args:
        network: the name of a backbone, as `create_model` takes it; a network of `make_dynamic` or `create_model`,
            whose weights are the start (it stays as it is: the run's network is `run.network()`); or a `Run`, which
            goes on where it was left, with its own settings.
        data: `NAME` or `NAME:PATH`, as `--data` takes it, or a `spnet.data.Dataset`; of a `Run`, its own.
        out: the run folder, not there yet; of a `Run`, its own.
        method, wrapper: of a backbone given by name; SP-Net when left out.
        backbone: of a network of your own: by which name `load` builds the plain one again, `torchvision:NAME`,
            `timm:NAME` or `package.module:function`.
        init: start from the weights of another run, or of a file with a state dict of the plain network.
        time_limit: seconds; when another epoch would not fit it stops, and `run.finished` is False.
        devices: processes, one a device, which share every batch.
        report: called with each epoch's row. note: with what one should know, a line each.
        settings: of training, method and wrapper, by the names of their flags: `epochs=20`, `lr=0.05`, `budget=0.7`.
            Those of the method are chosen when a network is made, not here.

    Raises:
        UserError: an unknown name or setting, data that do not go with the network, a folder that holds a run, a
            network that cannot be built again by name. DivergedError: a loss was not finite.

    Warns:
        NoEffectWarning: a setting changes nothing in this run.

    Example:
        >>> run = spnet.train("resnet8", "digits", "runs/new", epochs=1, subset=100, batch_size=32, validation=0)
        >>> run.finished, run.result.final.n
        (True, 450)
        >>> trace = run.network()(torch.zeros(1, 1, 8, 8))
    """
    how: dict[str, Any] = {"time_limit": time_limit, "devices": devices, "report": report, "note": note}
    if isinstance(network, Run):
        given = {"out": out, "method": method, "wrapper": wrapper, "backbone": backbone, "init": init, **settings}
        if chosen := [name for name, value in given.items() if value]:
            raise UserError(f"a run goes on with its own settings: leave out {', '.join(chosen)}.")
        place, dataset = _loaded(data or network.home)
        fit(network.config, dataset, network.folder, resume=True, data_at=place or None, **how)
        return Run(network.folder)
    if data is None or out is None:
        raise UserError("training needs data, such as 'digits', and a folder for the run: train(network, data, out).")
    start: Path | DynamicNetwork | None = run_folder(init) if init is not None else None
    place, dataset = _loaded(data)
    named = place or dataset.name
    if isinstance(network, DynamicNetwork):
        if method or wrapper or init is not None:
            raise UserError("the network has its method and weights: leave out method, wrapper and init.")
        config, start = config_of(network, backbone, named, settings), network
        _refuse_other_shape(network, dataset)
    else:
        if backbone:
            raise UserError("backbone names a network of your own; here its name is the first argument.")
        import_backbone(network)
        config = RunConfig(method or "spnet", wrapper, network, named, settings)
    for words in config.without_effect():
        warnings.warn(words, NoEffectWarning, stacklevel=2)
    folder = Path(out)
    fit(config, dataset, folder, init=start, data_at=place or None, **how)
    return Run(folder)


def config_of(net: DynamicNetwork, backbone: str, data: str, settings: dict[str, Any]) -> RunConfig:
    """The run that makes this network again and trains it."""
    origin = net.origin
    if origin is None:
        raise UserError("train takes networks of make_dynamic and create_model, which know their method.")
    name = backbone or origin.backbone
    if not name:
        raise UserError(
            "a network of your own is loaded again by name: add backbone='torchvision:NAME', 'timm:NAME' or "
            "'package.module:function', whichever builds the plain network."
        )
    import_backbone(name)
    config = RunConfig(origin.method, origin.wrapper, name, data, dict(origin.settings))
    known = [key for part in (config.method_config, *config.wrapper_configs) for key in vars(part)]
    if late := [key for key in settings if key in known]:
        raise UserError(f"'{late[0]}' belongs to the method: choose it when the network is made.")
    return config.with_settings(**settings)


def _refuse_other_shape(net: DynamicNetwork, dataset: Dataset) -> None:
    found = (dataset.in_channels, *dataset.image_size)
    if found != net.input_shape or dataset.num_classes != net.num_classes:
        raise UserError(
            f"data '{dataset.name}' have images of {found} with {dataset.num_classes} classes; the network was made "
            f"for {net.input_shape} with {net.num_classes}: make it with num_classes={dataset.num_classes} and an "
            "example of that shape."
        )


def evaluate(
    network: "str | Path | Run | DynamicNetwork | Cascade",
    data: str | Dataset | Source | None = None,
    *,
    executor: str = "masked",
    budget: float | None = None,
    exit_confidence: float | None = None,
    max_cost: float | None = None,
    threads: int | None = None,
    batch_size: int = 256,
) -> Evaluation:
    """Accuracy, cost, paths and controls by the test rule: arg-max decisions, no noise, every multiply-add counted.

    Args:
        network: a run, its folder or name, a network, or a cascade; a network is put into eval mode.
        data: `NAME` or `NAME:PATH` or a `Dataset`, whose test images are read, or a `Source` of images; left out, the
            run's own.
        executor, exit_confidence, max_cost, threads: as of `Engine`.
        budget: calibrate first, on training images, to this share of the static cost; the network itself keeps its
            threshold. Needs data with training images.
        batch_size: images at a time.

    Returns the figures: `accuracy` in percent, `n`, `macs_mean` an image, `cost_ratio` of the static network,
    `accuracy_shuffled_paths`, `accuracy_fixed_path`, ...

    Raises:
        UserError: no such run or data, data that do not go with the network, a rule it cannot serve.

    Example:
        >>> figures = spnet.evaluate("runs/digits")
        >>> figures.n, 0 < figures.accuracy <= 100, figures.cost_ratio < 1.5
        (450, True, True)
        >>> spnet.evaluate("runs/digits", executor="gathered", budget=0.8).cost_ratio < 1
        True
    """
    net, run = _opened(network)
    found = _images(data, net, run)
    engine = Engine(net, executor, budget=budget, threads=threads, exit_confidence=exit_confidence, max_cost=max_cost)
    if budget is not None:
        if not isinstance(found, Dataset):
            raise UserError("a budget is met on training images: give a data set, not a part of one.")
        engine.calibrate(spread(found.train, CALIBRATION_IMAGES).images)
    test = found.test if isinstance(found, Dataset) else found
    if isinstance(engine, CascadeEngine):
        return evaluate_cascade(engine, test, batch_size=batch_size)
    net = engine.model
    plain = executor == "masked" and budget is None and exit_confidence is None and max_cost is None
    before = net.decision_shift.clone()
    engine.settle()  # the controls ask the network
    try:
        size = 1 if executor == "branching" else batch_size
        figures = evaluate_network(net, test, forward=None if plain else engine, batch_size=size)
    finally:
        net.decision_shift.copy_(before)
    return figures if budget is None else replace(figures, budget=budget)


def calibrate(network: DynamicNetwork, data: str | Dataset | Source | Tensor, budget: float) -> float:
    """Shift a network's decision threshold, in place, so that its mean cost is `budget`; returns the cost reached.

    Args:
        data: whose training images are read, without labels: a name or a `Dataset`; or a `Source`, or images
            uint8 (N, C, H, W).
        budget: share of the static cost, such as 0.7.

    Raises:
        UserError: the network decides nothing, or no threshold comes within 2 % of the budget; it is then as before.

    Example:
        >>> net = spnet.load("runs/digits")
        >>> abs(spnet.calibrate(net, "digits", 0.8) - 0.8) < 0.02
        True
    """
    if not isinstance(network, DynamicNetwork):
        raise UserError(f"calibrate changes a network, such as spnet.load(...) gives; not {type(network).__name__}.")
    if isinstance(data, Tensor):
        network.check_images(data)
        if data.dtype != torch.uint8:
            raise UserError(f"images to calibrate on are uint8 (0 to 255), not {data.dtype}.")
        part: Source = Split(data, torch.zeros(len(data), dtype=torch.int64, device=data.device))
    else:
        found = _images(data, network, None)
        part = spread(found.train if isinstance(found, Dataset) else found, CALIBRATION_IMAGES).in_memory()
    return calibrate_network(network, part.to(network.mean.device), budget)


@overload
def export(
    network: "str | Path | Run | DynamicNetwork",
    file: str | Path,
    *,
    form: str = ...,
    path: Sequence[int] | None = ...,
    data: str | Dataset | Source | None = ...,
    int8: bool = ...,
    stages: Literal[False] = ...,
    exit_confidence: None = ...,
) -> "Exported": ...
@overload
def export(
    network: "str | Path | Run | DynamicNetwork",
    file: str | Path,
    *,
    data: str | Dataset | Source | None = ...,
    stages: Literal[True],
    exit_confidence: float | None = ...,
) -> "ExportedStages": ...
@overload
def export(
    network: Cascade, file: str | Path, *, form: str = ..., data: str | Dataset | Source | None = ...
) -> "ExportedCascade": ...
def export(
    network: "str | Path | Run | DynamicNetwork | Cascade",
    file: str | Path,
    *,
    form: str = "single",
    path: Sequence[int] | None = None,
    data: str | Dataset | Source | None = None,
    int8: bool = False,
    stages: bool = False,
    exit_confidence: float | None = None,
) -> "Exported | ExportedStages | ExportedCascade":
    """Write a network as an ONNX file of standard operators that runs without spnet, after comparing it with eager; or
    as a folder of static files, for runtimes that have no `If` or run it badly.

    Args:
        network: a run, its folder or name, a network; or a cascade, which becomes a file a member, one of the whole and
            a JSON file that says how they go together.
        file: where to.
        form: `single` (one image; skipped blocks are not computed), `batch` (any number of images) or `path` (one path,
            no routers).
        path: of form `path`: an option a block; None runs every block in full.
        data: whose test images it is compared on too; random ones alone when left out.
        int8: 8-bit weights and features, routers in fp32: calibrated on training images of the data (left out: the
            run's own), judged on its test images. `int8` of what is returned says `accuracy` and `accuracy_fp32` in
            percent, and `speed_up` over fp32 on this machine.
        stages: `file` is a new folder instead: one static graph from router to router, `stages.json` that says how they
            go together, and `run_stages.py`, which runs them by onnxruntime or OpenVINO.
        exit_confidence: of stages: images leave at the stage heads too, at this class probability.

    Raises:
        UserError: a part of the network has no ONNX form, onnxruntime is missing, the file cannot be written, or the
            folder is there already; int8 without data to calibrate on.
        RuntimeError: the graph disagrees with the network; nothing is written.

    Example:
        >>> spnet.export("runs/digits", "digits.onnx", data="digits").error < 1e-3
        True
        >>> spnet.export("runs/digits", "digits-stages", stages=True).error < 1e-3
        True
        >>> report = spnet.export("runs/digits", "digits-int8.onnx", int8=True).int8
        >>> report.calibrated_on, report.tested_on, abs(report.accuracy - report.accuracy_fp32) < 5
        (256, 450, True)
    """
    from spnet.inference.export import export_cascade, export_int8, export_onnx, export_stages

    net, run = _opened(network)
    if isinstance(net, Cascade) and (path is not None or int8 or stages or exit_confidence is not None):
        raise UserError("path, int8, stages and exit_confidence are of one network: export a member on its own.")
    if int8 and stages:
        raise UserError("int8 is of one file, stages of many in fp32: choose one of them.")
    found = images = None
    if data is not None or int8:
        found = _images(data, net, run)
        test = found.test if isinstance(found, Dataset) else found
        images = test.select(range(min(VERIFIED_ON, len(test)))).images
    classes = run.classes if run else net.classes or ()
    if isinstance(net, Cascade):
        return export_cascade(net, file, form=form, classes=classes, images=images)
    if stages:
        if form != "single" or path is not None:
            raise UserError("stages are for single images: leave out form and path.")
        return export_stages(net, file, exit_confidence=exit_confidence, classes=classes, images=images)
    if exit_confidence is not None:
        raise UserError("exit_confidence is for stages: add stages=True.")
    how: dict[str, Any] = {"form": form, "path": path, "classes": classes, "images": images}
    if not int8:
        return export_onnx(net, file, **how)
    if not isinstance(found, Dataset):
        raise UserError("int8 is calibrated on training and judged on test images: give a data set, not a part of one.")
    return export_int8(net, file, found, **how)


def _opened(network: "str | Path | Run | DynamicNetwork | Cascade") -> "tuple[DynamicNetwork | Cascade, Run | None]":
    if isinstance(network, (DynamicNetwork, Cascade)):
        return network, None
    run = Run(network)
    return run.network(), run


def _loaded(data: str | Dataset) -> tuple[str, Dataset]:
    """Where the data lie, empty where they came as a `Dataset`, and the data."""
    if isinstance(data, Dataset):
        return "", data
    if not isinstance(data, str):
        raise UserError(f"data are a name, such as 'digits' or 'photos:DIR', or a Dataset; not {type(data).__name__}.")
    return data, datasets.load(data)


def _images(data: str | Dataset | Source | None, net: "DynamicNetwork | Cascade", run: Run | None) -> Dataset | Source:
    """The data as the network takes them."""
    from spnet.data.match import matched

    if data is None or isinstance(data, str):
        if run is not None:
            return run.data(data)
        if data is None:
            raise UserError("a network does not know its data: name them, such as data='digits'.")
        data = datasets.load(data)
    if isinstance(data, Dataset):
        return matched(data, net.classes, net.input_shape, num_classes=net.num_classes)
    if tuple(data.shape) != tuple(net.input_shape):
        raise UserError(f"this network takes images of {tuple(net.input_shape)}, not {tuple(data.shape)}.")
    return data
