"""What an engine takes for images: checked once, before anything runs, at little cost."""

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from spnet.data.normalised import BYTES, advice, looks_like_bytes
from spnet.errors import ImagesWarning, UserError
from spnet.inference.cascade import Model
from spnet.inference.runtimes.protocol import Images

UINT8, FLOAT32 = np.dtype(np.uint8).char, np.dtype(np.float32).char
FEW_VALUES = 10_000
"""A longer dot product may start threads."""
SAMPLES = 64


def checked(images: Images, model: Model, shape: tuple[int, ...]) -> Images:
    """The images (B, C, H, W) as an array where numpy can hold them, in the same memory.

    Args:
        shape: (C, H, W) that the model takes; its own attribute costs a call more.

    Raises:
        UserError: no images, images of another size or type, or with NaN.
    """
    if isinstance(images, Tensor):
        array = _array(images)
        if array is None:
            if images.is_meta:
                raise UserError("images on the meta device hold no values: give them on the CPU or on a GPU.")
            model.check_images(images)
    elif isinstance(images, np.ndarray):
        array = images
    else:
        raise UserError(f"images are a tensor (B, C, H, W), or a numpy array; not {type(images).__name__}.")
    if array is not None:
        kind = array.dtype
        if array.ndim != 4 or array.shape[1:] != shape or (kind.char != UINT8 and kind.kind != "f"):
            _refuse(array, model)
    if len(images if array is None else array) == 0:
        raise UserError("there are no images to run: give at least one.")
    if array is None:
        _check_values(images.detach().float().cpu().numpy())  # type: ignore[union-attr]
        return images
    if array.dtype.char != UINT8:
        _check_values(array)
    return array


def _refuse(array: np.ndarray, model: Model) -> None:
    """Say what is wrong with these images."""
    try:
        model.check_images(torch.from_numpy(array))
    except TypeError as error:  # a type that torch does not know
        raise UserError(f"images are uint8 (0 to 255) or normalised floats, not {array.dtype}.") from error


def _array(images: Tensor) -> np.ndarray | None:
    """The tensor's memory as an array; None on another device, or of a type that numpy lacks."""
    try:
        return images.numpy()
    except RuntimeError:  # it carries a gradient
        return _array(images.detach()) if images.requires_grad else None
    except TypeError:
        return None


def _check_values(images: np.ndarray) -> None:
    """Refuse NaN and infinite values, warn of bytes."""
    if _surely_normalised(images):
        return
    # extremes, for sums would raise floating-point flags here, and to silence those takes longer than the rest
    low, high = float(np.minimum.reduce(images, axis=None)), float(np.maximum.reduce(images, axis=None))
    if low > -BYTES and high < BYTES:
        return
    if not np.isfinite(images).all():
        raise UserError("the images hold NaN or infinite values: check how they were normalised.")
    if looks_like_bytes(low, high):
        warnings.warn(advice(high), ImagesWarning, stacklevel=5)


def _surely_normalised(images: np.ndarray) -> bool:
    """Whether one quick pass over a small image says so: the sum of squares is finite only if all values are, and a
    negative one among a few shows that they are no bytes."""
    if images.size > FEW_VALUES or images.dtype.char != FLOAT32:
        return False
    values = images.reshape(-1)
    some = values[:: values.size // SAMPLES + 1].tolist()
    return math.isfinite(np.vdot(values, values)) and min(some, default=0.0) < 0
