"""One encoded picture (PNG, JPEG, WebP, ...) to pixels: opened, turned upright, brought to 8-bit grey or colour."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spnet.data.reason import reason
from spnet.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

# In the order they are tried: first those Pillow knows at once, for the first other name makes it import its plugins
# for forty rare formats. Naming them at all spares it the search through those (1.7 times faster for WebP).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF")


def read_picture(path: str | Path, in_channels: int, image_size: tuple[int, int]) -> tuple[Tensor, str | None]:
    """Open one image file for a network: (uint8 (C, H, W), a note if the picture had to be changed, else None).

    `image_size` is (H, W). A picture of another size is scaled to cover it and cut to its centre; the note gives
    sizes as width x height. UserError if the file is missing, unreadable or truncated, or if the network takes
    neither grey (1) nor colour (3) pictures.
    """
    if in_channels not in (1, 3):
        raise UserError(f"a network with {in_channels} input channels takes no pictures; use one with 1 or 3")
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no image file '{path}'; check the path")
    picture = open_picture(path, f"'{path}'")
    notes = []
    height, width = image_size
    if picture.size != (width, height):
        notes.append(f"resized from {picture.width}x{picture.height} to {width}x{height}")
        if picture.width * height != picture.height * width:
            notes.append("cut to its centre")
        picture = fit(picture, width, height)
    mode = "L" if in_channels == 1 else "RGB"
    if picture.mode != mode:
        notes.append("turned from colour to grey" if mode == "L" else "turned from grey to colour")
        picture = picture.convert(mode)
    return torch.from_numpy(planes(picture)), ", ".join(notes) or None


def open_picture(source: Path | bytes, name: str) -> Image:
    """Decode a file or its bytes to mode L (if it was stored as 8-bit grey) or RGB; `name` stands for it in errors."""
    from PIL import Image, ImageOps

    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        picture.load()
        if "exif" in picture.info:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode == "P" and "transparency" in picture.info:
            picture = picture.convert("RGBA")
    except Exception as error:  # decoders of broken files raise almost anything
        unknown = isinstance(error, Image.UnidentifiedImageError)
        why = f"not one of {', '.join(FORMATS)}" if unknown else reason(error)
        raise UserError(f"{name} is not a readable image ({why}); repair or remove it") from error
    if picture.mode[0] in "IF":
        raise UserError(f"{name} has more than 8 bits a channel (mode {picture.mode}); convert it to 8 bits")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


def fit(picture: Image, width: int, height: int) -> Image:
    """Scale so that the picture just covers width x height (the shorter side fits), then cut out the centre."""
    from PIL import Image, ImageOps

    return ImageOps.fit(picture, (width, height), method=Image.Resampling.BICUBIC)


def planes(picture: Image) -> np.ndarray:
    """Pixels of an L or RGB picture as uint8 (C, H, W)."""
    pixels = np.array(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
