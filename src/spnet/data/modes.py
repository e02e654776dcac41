"""A decoded picture of any mode to 8-bit grey (L) or colour (RGB), and words for what that changed.

- More than 8 bits a channel are scaled to 8. Pillow does so itself for colour (the upper byte), here for grey.
- Transparent parts are laid on white, as a page shows them: what lies beneath is whatever the program left there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spnet.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

ON_WHITE = "transparent parts laid on white"
SCALED = "scaled to 8 bits"
_GREY = ("1", "L", "LA", "La")


def plain(picture: Image) -> tuple[Image, list[str]]:
    """(the picture in mode L or RGB, what was changed). UserError for grey levels that mean no brightness."""
    notes = []
    if picture.mode[0] in "IF":
        picture = _eight_bits(picture)
        notes.append(SCALED)
    mode = "L" if picture.mode in _GREY else "RGB"
    if _has_alpha(picture):
        from PIL import Image

        opaque = picture.convert("LA" if picture.mode == "La" else "RGBA").convert("RGBA")
        if opaque.getchannel("A").getextrema() != (255, 255):
            paper = Image.new("RGBA", picture.size, "white")
            paper.alpha_composite(opaque)
            opaque = paper
            notes.append(ON_WHITE)
        picture = opaque.convert("RGB")
    return picture if picture.mode == mode else picture.convert(mode), notes


def has_colour(pixels_CHW: np.ndarray) -> bool:
    """Whether any pixel has: a grey picture may be stored as colour (WebP and most palettes know nothing else).

    Channels one level apart are no colour: lossy WebP turns grey into that.
    """
    return len(pixels_CHW) == 3 and bool((pixels_CHW.max(0) - pixels_CHW.min(0) > 1).any())


def to_grey(images_NCHW: np.ndarray) -> np.ndarray:
    """uint8 (N, 3, H, W) -> (N, 1, H, W) with Pillow's weights, so that a picture read alone has the same levels."""
    grey_NCHW = np.empty_like(images_NCHW[:, :1])
    for image_CHW, grey_CHW in zip(images_NCHW, grey_NCHW, strict=True):
        red, green, blue = image_CHW.astype(np.uint32)
        grey_CHW[0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return grey_NCHW


def _has_alpha(picture: Image) -> bool:
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        return True
    return picture.mode == "P" and picture.palette is not None and picture.palette.mode == "RGBA"


def _eight_bits(picture: Image) -> Image:
    """Mode I;16, I or F to L, or LA if one level stands for transparency.

    The numbers say their own range: shares of white if they are fractions up to 1, 8-bit levels if none is above 255,
    else 16-bit levels.
    """
    from PIL import Image

    level_HW = np.asarray(picture).astype(np.float64)
    low, high = float(level_HW.min()), float(level_HW.max())
    if not (low >= 0 and high <= 65535):
        raise UserError(f"its grey levels run from {low:g} to {high:g}, not within 0 to 65535")
    if picture.mode[0] == "F" and high <= 1:
        scaled_HW = np.rint(255 * level_HW)
    else:
        scaled_HW = np.rint(level_HW) if high <= 255 else level_HW // 256
    grey = Image.fromarray(scaled_HW.astype(np.uint8))
    if isinstance(clear := picture.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(level_HW == clear, 0, 255).astype(np.uint8)))
    return grey
