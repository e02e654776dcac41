"""Many encoded pictures to one array: one size for all, grey only if all are grey."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from spnet.data.dataset import Split
from spnet.data.pictures import fit, open_picture, planes
from spnet.data.spec import Spec
from spnet.errors import UserError


def stack_pictures(pictures: Iterable[tuple[str, Path | bytes]], count: int, spec: Spec) -> np.ndarray:
    """Decode `count` (name, file or bytes) into uint8 (N, C, H, W); C is 1 if all are 8-bit grey, else 3.

    With `spec.size` each is scaled and cut to a square of that side. UserError if a picture does not decode, or if
    sizes differ (it names two that do, width x height, and the option that mends it).
    """
    images_NCHW = np.empty((0, 3, 0, 0), dtype=np.uint8)
    first_name, all_grey = "", True
    for row, (name, source) in enumerate(pictures):
        picture = open_picture(source, name)
        if spec.size is not None:
            picture = fit(picture, spec.size, spec.size)
        pixels_CHW = planes(picture)
        if row == 0:
            first_name = name
            images_NCHW = np.empty((count, 3, *pixels_CHW.shape[1:]), dtype=np.uint8)
        elif pixels_CHW.shape[1:] != images_NCHW.shape[2:]:
            raise unequal(spec, first_name, images_NCHW.shape, name, pixels_CHW.shape)
        all_grey = all_grey and len(pixels_CHW) == 1
        images_NCHW[row] = pixels_CHW
    return images_NCHW[:, :1].copy() if all_grey else images_NCHW


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


def unequal(spec: Spec, name: str, shape: tuple[int, ...], other_name: str, other_shape: tuple[int, ...]) -> UserError:
    """The error for two pictures (or files of pictures) of different size."""
    (height, width), (other_height, other_width) = shape[-2:], other_shape[-2:]
    return UserError(
        f"all images must have one size, but {name} is {width}x{height} and {other_name} is "
        f"{other_width}x{other_height}; resize them with --data '{spec.resizing(min(height, width))}'"
    )
