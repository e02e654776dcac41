"""Fixed parts of a split, chosen by index alone: no seed changes which images they hold.

Two ideas: a *balanced subset* takes the first images of each class; a *stratified part* takes evenly spaced images of
each class, in proportion to how many it has. Both keep the original order.
"""

from typing import TypeVar

import torch
from torch import Tensor

from spnet.data.source import Source
from spnet.errors import UserError

S = TypeVar("S", bound=Source)


def balanced_subset(split: S, size: int) -> S:
    """The first `size / K` images of each of the K classes present, one more of the first if it does not divide.

    UserError if `size` is below 1, above the split's, or more than the rarest class allows.
    """
    if not 1 <= size <= len(split):
        raise UserError(f"a subset of {size} images cannot be taken from {len(split)}; choose 1 to {len(split)}")
    classes = split.labels.unique().tolist()
    base, extra = divmod(size, len(classes))
    chosen = []
    for place, label in enumerate(classes):
        wanted = base + (place < extra)
        index_n = (split.labels == label).nonzero().flatten()
        if len(index_n) < wanted:
            raise UserError(
                f"a class-balanced subset of {size} images needs {wanted} of class {label}, which has {len(index_n)}; "
                f"choose at most {_rarest(split.labels) * len(classes)}"
            )
        chosen.append(index_n[:wanted])
    return split.select(torch.cat(chosen).sort().values)


def validation_part(split: S, share: float) -> tuple[S, S]:
    """(train, validation): validation is a fixed, stratified `share` (0 to 1) of the split, rounded to whole images."""
    if not 0 < share < 1:
        raise UserError(f"the validation share must lie between 0 and 1, not {share}")
    count = int(share * len(split) + 0.5)
    if count < 1:
        raise UserError(f"a validation share of {share} of {len(split)} images is no image; choose a larger share")
    return stratified_part(split, count)


def stratified_part(split: S, count: int) -> tuple[S, S]:
    """(rest, part): `part` has exactly `count` images, each class in proportion, evenly spaced within its class.

    Every class keeps at least one image in `rest`; UserError if `count` is too large for that.
    """
    label_N = split.labels.cpu()
    classes, sizes = label_N.unique(return_counts=True)
    quotas = _quotas(sizes.tolist(), count)
    in_part_N = torch.zeros(len(split), dtype=torch.bool)
    for label, size, quota in zip(classes.tolist(), sizes.tolist(), quotas, strict=True):
        index_n = (label_N == label).nonzero().flatten()
        in_part_N[index_n[[(2 * j + 1) * size // (2 * quota) for j in range(quota)]]] = True
    return split.select((~in_part_N).nonzero().flatten()), split.select(in_part_N.nonzero().flatten())


def held_out_part(split: S, source: str) -> tuple[S, S]:
    """(train, test) for data that come undivided: a fifth of the images is test. `source` names the data in errors."""
    if len(split) == 0 or int(split.labels.unique(return_counts=True)[1].min()) < 2:
        raise UserError(f"{source} cannot be divided in train and test: each class needs at least two images")
    return stratified_part(split, max(1, (2 * len(split) + 5) // 10))


def _quotas(sizes: list[int], count: int) -> list[int]:
    """How many of each class make up `count`: proportional, largest remainders first, never a whole class."""
    total = sum(sizes)
    if not 0 <= count <= total - len(sizes):
        raise UserError(
            f"{count} of {total} images cannot be set aside while each of {len(sizes)} classes keeps one; "
            "give more images a class or a smaller part"
        )
    quotas = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] * count % total), i))
    while sum(quotas) < count:
        for i in by_remainder:
            if sum(quotas) < count and quotas[i] < sizes[i] - 1:
                quotas[i] += 1
    return quotas


def _rarest(label_N: Tensor) -> int:
    """How many images the rarest class has."""
    return int(label_N.unique(return_counts=True)[1].min())
