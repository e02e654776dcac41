"""What callers give for a network and for data: names, folders, objects."""

from pathlib import Path

from spnet import data as datasets
from spnet.data import Dataset, Source
from spnet.errors import UserError
from spnet.inference.cascade import Cascade
from spnet.network.dynamic import DynamicNetwork
from spnet.runs.run import Run


def opened(network: "str | Path | Run | DynamicNetwork | Cascade") -> "tuple[DynamicNetwork | Cascade, Run | None]":
    if isinstance(network, (DynamicNetwork, Cascade)):
        return network, None
    run = Run(network)
    return run.network(), run


def loaded(data: str | Dataset) -> tuple[str, Dataset]:
    """Where the data lie, empty where they came as a `Dataset`, and the data."""
    if isinstance(data, Dataset):
        return "", data
    if not isinstance(data, str):
        raise UserError(f"data are a name, such as 'digits' or 'photos:DIR', or a Dataset; not {type(data).__name__}.")
    return data, datasets.load(data)


def images_for(
    data: str | Dataset | Source | None, net: "DynamicNetwork | Cascade", run: Run | None
) -> Dataset | Source:
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
