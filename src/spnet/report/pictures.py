"""Single images as data URIs: small ones without loss, enlarged by the browser to plain squares of pixels."""

import base64
import io
from typing import TYPE_CHECKING

from spnet.report.markup import Markup, element

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 72
"""Side on the page, in CSS pixels."""
LOSSLESS, THUMBNAIL = 48, 96
"""Up to this side an image is stored as it is (PNG); larger ones as a JPEG of this side."""


def picture(image_CHW: "Tensor", name: str) -> Markup:
    """An img element of a uint8 (C, H, W) image, grey (C = 1) or colour."""
    from PIL import Image

    pixels = image_CHW.cpu().numpy()
    if len(pixels) not in (1, 3):
        pixels = pixels[:1]
    opened = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    width, height = opened.size
    file = io.BytesIO()
    if max(opened.size) <= LOSSLESS:
        opened.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        opened.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        opened.save(file, "JPEG", quality=85, optimize=True)
        kind = "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    scale = SHOWN / max(width, height)
    return element("img", src=source, alt=name, width=round(width * scale), height=round(height * scale))
