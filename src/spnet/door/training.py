"""`spnet.train`."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spnet.backbones import import_backbone
from spnet.data import Dataset
from spnet.door.given import loaded
from spnet.errors import NoEffectWarning, UserError
from spnet.network.dynamic import DynamicNetwork
from spnet.runs.config import RunConfig
from spnet.runs.open import run_folder
from spnet.runs.record import EpochRow
from spnet.runs.run import Run
from spnet.training.fit import fit


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
        place, dataset = loaded(data or network.home)
        fit(network.config, dataset, network.folder, resume=True, data_at=place or None, **how)
        return Run(network.folder)
    if data is None or out is None:
        raise UserError("training needs data, such as 'digits', and a folder for the run: train(network, data, out).")
    start: Path | DynamicNetwork | None = run_folder(init) if init is not None else None
    place, dataset = loaded(data)
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
