"""Data for a network that is trained already: classes matched by name, labels brought to the network's order.

The one place where data and a trained network meet: evaluation, calibration, resuming, export and timing.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import torch

from spnet.data.dataset import Dataset, Split
from spnet.data.source import Source
from spnet.data.spec import sized_as
from spnet.errors import UserError
from spnet.terminal import say


def load_for(
    classes: Sequence[str] | None,
    input_shape: tuple[int, int, int],
    spec: str | None,
    trained_on: str,
    *,
    num_classes: int,
    may_download: bool = True,
    workers: int = 1,
    cache_gb: float = 0.0,
) -> Dataset:
    """Load `spec`, or the data that the network was `trained_on`, as `matched` has them. Where `spec` names no size,
    images are resized as those of the training were."""
    from spnet.data import load

    own = trained_on if spec is None else sized_as(spec, trained_on)
    dataset = load(own, may_download=may_download, workers=workers, cache_gb=cache_gb)
    return matched(dataset, classes, input_shape, num_classes=num_classes)


def matched(
    dataset: Dataset, classes: Sequence[str] | None, input_shape: tuple[int, int, int], *, num_classes: int
) -> Dataset:
    """The data set as a network with these classes and this input takes it.

    The same names in another order: labels are renumbered. Grey images for a network of colour: repeated in its three
    channels. Where data or network have no names of classes, one line on stderr says that numbers are trusted.

    Args:
        classes: the network's, in the order of its outputs; None if it was trained on numbers alone.
        input_shape: (C, H, W).

    Raises:
        UserError: other classes (it names the first that differs), or images of another kind.
    """
    channels = input_shape[0]
    if dataset.in_channels == 1 and channels == 3:
        dataset = _in_colour(dataset)
    found = (dataset.in_channels, *dataset.image_size)
    if found != input_shape or dataset.num_classes != num_classes:
        raise UserError(
            f"data '{dataset.name}' have images of {found} with {dataset.num_classes} classes; this network takes "
            f"{input_shape} with {num_classes}{_extra(dataset, classes)}."
        )
    if classes is None or not dataset.named:
        who = "the network" if classes is None else f"data '{dataset.name}'"
        say(f"{who} has no names of classes to compare: labels are taken by number")
        return dataset
    return _renumbered(dataset, classes)


def known_classes(classes: Sequence[object], data_name: str) -> tuple[str, ...] | None:
    """The names that a run folder holds; None where its data had none (Parquet without names is numbered)."""
    names = tuple(str(name) for name in classes)
    return None if data_name == "parquet" and names == tuple(map(str, range(len(names)))) else names


def order(own: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """For each of the `own` names its place among those `wanted`; None if they are not the same names.

    Composed and decomposed letters are one (file systems differ). Names that occur twice must stand alike.
    """
    own, wanted = _normal(own), _normal(wanted)
    if own == wanted:
        return list(range(len(own)))
    if sorted(own) != sorted(wanted) or len(set(own)) < len(own):
        return None
    return [wanted.index(name) for name in own]


def _renumbered(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    places = order(dataset.classes, classes)
    if places is None:
        strangers, missing = _difference(dataset.classes, classes)
        if not strangers or not missing:
            raise UserError(f"data '{dataset.name}' and network name a class twice; rename it, for names are matched")
        raise UserError(
            f"data '{dataset.name}' have a class '{strangers[0]}' that the network does not know; it knows "
            f"'{missing[0]}', which the data lack. Rename the classes, or give the data it was trained for."
        )
    if places == list(range(len(places))):
        return dataset
    place_K = torch.tensor(places, device=dataset.train.labels.device)

    def renumbered(split: Source) -> Source:
        return split.labelled(place_K[split.labels])

    train, test = renumbered(dataset.train), renumbered(dataset.test)
    return replace(dataset, train=train, test=test, classes=tuple(classes))


def _in_colour(dataset: Dataset) -> Dataset:
    say(f"data '{dataset.name}' are grey, the network takes colour: each image stands in all three channels")

    def repeated(split: Source) -> Split:
        return Split(split.images.repeat(1, 3, 1, 1), split.labels)

    train, test = repeated(dataset.train), repeated(dataset.test)
    return replace(dataset, train=train, test=test, mean=dataset.mean * 3, std=dataset.std * 3)


def _extra(dataset: Dataset, classes: Sequence[str] | None) -> str:
    """Which class is too many or too few, in brackets, where names tell."""
    if classes is None or not dataset.named or len(classes) == dataset.num_classes:
        return ""
    strangers, missing = _difference(dataset.classes, classes)
    return f" ('{strangers[0]}' is new to it)" if strangers else f" ('{missing[0]}' is missing)" if missing else ""


def _difference(own: Sequence[str], wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """(names of `own` that are not wanted, wanted ones that are not there), each in its order."""
    known, here = set(_normal(wanted)), set(_normal(own))
    strangers = [name for name in own if _normal([name])[0] not in known]
    return strangers, [name for name in wanted if _normal([name])[0] not in here]


def _normal(names: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", str(name)) for name in names]
