"""Many encoded pictures to one array: one size for all, grey only if no pixel of any has colour."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from spnet.data.dataset import Split
from spnet.data.modes import has_colour, to_grey
from spnet.data.pictures import fit, open_picture, planes
from spnet.data.spec import MAX_SIZE, Spec
from spnet.errors import UserError
from spnet.progress import counted
from spnet.terminal import say


def stack_pictures(pictures: Iterable[tuple[str, Path | bytes]], count: int, spec: Spec) -> np.ndarray:
    """Decode `count` (name, file or bytes) into uint8 (N, C, H, W); C is 1 if no pixel of any has colour, else 3.

    With `spec.size` each is scaled and cut to a square of that side. What had to be changed is counted on stderr.
    UserError, after all have been looked at, if some do not decode (it names the first and says how many), or if sizes
    differ (it names two that do, width x height, and the option that mends it).
    """
    images_NCHW = np.empty((0, 3, 0, 0), dtype=np.uint8)
    first_name, other = "", None
    colour, sides, changes, broken = False, Counter[int](), Counter[str](), list[UserError]()
    for row, (name, source) in enumerate(counted(pictures, "pictures read", count)):
        try:
            picture, notes = open_picture(source, name)
        except UserError as error:
            broken.append(error)
            continue
        changes.update(notes)
        colour = colour or has_colour(planes(picture))  # as stored: scaling may widen a level's difference
        if spec.size is not None:
            picture = fit(picture, spec.size, spec.size)
        pixels_CHW = planes(picture)
        sides[min(picture.size)] += 1
        if not first_name:
            first_name = name
            images_NCHW = np.empty((count, 3, *pixels_CHW.shape[1:]), dtype=np.uint8)
        if pixels_CHW.shape[1:] != images_NCHW.shape[2:]:
            other = other or (name, pixels_CHW.shape)
            continue
        images_NCHW[row] = pixels_CHW
    if broken:
        raise _unreadable(broken, count)
    if other is not None:
        raise unequal(spec, first_name, images_NCHW.shape, *other, _median(sides))
    for note, number in changes.items():
        say(f"'{spec.path}': {number} of {count} pictures {note}")
    return images_NCHW if colour else to_grey(images_NCHW)


def join(parts: list[tuple[str, np.ndarray]], spec: Spec) -> list[np.ndarray]:
    """Bring several (name, uint8 (N, C, H, W)) to the same channels: grey becomes colour if any other is colour.

    UserError if their sizes differ.
    """
    first_name, first_NCHW = parts[0]
    for name, images_NCHW in parts:
        if images_NCHW.shape[2:] != first_NCHW.shape[2:]:
            raise unequal(spec, first_name, first_NCHW.shape, name, images_NCHW.shape)
    channels = max(images_NCHW.shape[1] for _, images_NCHW in parts)
    return [
        images_NCHW if images_NCHW.shape[1] == channels else np.repeat(images_NCHW, channels, axis=1)
        for _, images_NCHW in parts
    ]


def same_channels(train: Split, test: Split, spec: Spec) -> tuple[Split, Split]:
    """`join` for the two splits of one data set."""
    train_images, test_images = join([("train", train.images.numpy()), ("test", test.images.numpy())], spec)
    return Split(torch.from_numpy(train_images), train.labels), Split(torch.from_numpy(test_images), test.labels)


def unequal(
    spec: Spec,
    name: str,
    shape: tuple[int, ...],
    other_name: str,
    other_shape: tuple[int, ...],
    size: int | None = None,
) -> UserError:
    """The error for two pictures (or files of pictures) of different size; `size`: the side that is advised."""
    (height, width), (other_height, other_width) = shape[-2:], other_shape[-2:]
    size = size or min(height, width, other_height, other_width)
    return UserError(
        f"all images must have one size, but {name} is {width}x{height} and {other_name} is "
        f"{other_width}x{other_height}; resize them with --data '{spec.resizing(min(size, MAX_SIZE))}'"
    )


def _median(sides: Counter[int]) -> int:
    """Half of the pictures have a shorter side of at most this."""
    return sorted(sides.elements())[(sides.total() - 1) // 2]


def _unreadable(broken: list[UserError], count: int) -> UserError:
    if len(broken) == 1:
        return broken[0]
    return UserError(f"{len(broken)} of {count} images are not readable; the first: {broken[0]}")
