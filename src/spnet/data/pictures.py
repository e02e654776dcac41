"""One encoded picture (PNG, JPEG, WebP, ...) to pixels: decoded, turned upright, brought to 8-bit grey or colour."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spnet.data.formats import COMMON, rare
from spnet.data.modes import has_colour, plain
from spnet.data.reason import reason
from spnet.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image


def read_picture(path: str | Path, in_channels: int, image_size: tuple[int, int]) -> tuple[Tensor, str | None]:
    """Open one image file for a network: (uint8 (C, H, W), a note if the picture had to be changed, else None).

    `image_size` is (H, W). A picture of another size is scaled to cover it and cut to its centre; the note gives
    sizes as width x height. UserError if the file is missing, unreadable or truncated, or if the network takes
    neither grey (1) nor colour (3) pictures.
    """
    path = Path(path)
    return picture_for(path, f"'{path}'", in_channels, image_size)


def takes_pictures(in_channels: int) -> None:
    """UserError if a network with so many input channels takes neither grey (1) nor colour (3) pictures."""
    if in_channels not in (1, 3):
        raise UserError(f"a network with {in_channels} input channels takes no pictures; use one with 1 or 3")


def picture_for(
    source: Path | bytes, name: str, in_channels: int, image_size: tuple[int, int]
) -> tuple[Tensor, str | None]:
    """`read_picture` of a file or of its bytes; `name` stands for it in errors."""
    takes_pictures(in_channels)
    if isinstance(source, Path) and not os.path.isfile(source):  # too long a name is none
        what = "is no regular file" if os.path.exists(source) else "is not there"
        raise UserError(f"there is no image file {name}: it {what}; check the path")
    picture, notes = open_picture(source, name)
    colour = in_channels == 1 and has_colour(planes(picture))
    height, width = image_size
    if picture.size != (width, height):
        notes.append(f"resized from {picture.width}x{picture.height} to {width}x{height}")
        if picture.width * height != picture.height * width:
            notes.append("cut to its centre")
        picture = fit(picture, width, height)
    mode = "L" if in_channels == 1 else "RGB"
    if picture.mode != mode:
        if mode == "RGB":
            notes.append("turned from grey to colour")
        elif colour:
            notes.append("turned from colour to grey")
        picture = picture.convert(mode)
    return torch.from_numpy(planes(picture)), ", ".join(notes) or None


def open_picture(source: Path | bytes, name: str) -> tuple[Image, list[str]]:
    """Decode a file or its bytes: (the picture in mode L if it is stored as grey, else RGB, what was changed).

    `name` stands for it in errors. UserError if it does not decode, or not to brightness.
    """
    from PIL import Image

    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on odd but readable files
            picture = _decoded(data)
            upright, turned = _upright(picture)
            picture, changed = plain(upright)
    except Exception as error:  # decoders of broken files raise almost anything
        unknown = isinstance(error, Image.UnidentifiedImageError)
        why = f"not one of {', '.join(COMMON)} or {len(rare())} rarer formats" if unknown else reason(error)
        raise UserError(f"{name} is not a readable image ({why}); repair or remove it") from error
    return picture, turned + changed


def _decoded(data: bytes) -> Image:
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(data), formats=COMMON)
    except Image.UnidentifiedImageError:
        picture = Image.open(io.BytesIO(data), formats=rare())
    picture.load()
    return picture


def _upright(picture: Image) -> tuple[Image, list[str]]:
    """As the camera's EXIF block says, where that can be read: a damaged one says nothing about the pixels."""
    from PIL import ImageOps

    if "exif" not in picture.info:
        return picture, []
    try:
        return ImageOps.exif_transpose(picture), []
    except Exception:
        return picture, ["not turned (its EXIF block is damaged)"]


def fit(picture: Image, width: int, height: int) -> Image:
    """Scale so that the picture just covers width x height (the shorter side fits), then cut out the centre."""
    from PIL import Image, ImageOps

    return ImageOps.fit(picture, (width, height), method=Image.Resampling.BICUBIC)


def planes(picture: Image) -> np.ndarray:
    """Pixels of an L or RGB picture as uint8 (C, H, W)."""
    pixels = np.array(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
