"""What training and testing see of a photo: a random part of it, perhaps mirrored; its centre.

Every photo is first brought to one shorter side (`stored_side`), whether or not it is remembered: a cache changes the
time, never the pixels.

Shapes: C = 3 channels, H x W the photo's, S the side of what the network sees.
"""

import math

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as views

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
"""Area, as a share of the photo, and width over height of the parts that training sees: torchvision's defaults."""
ATTEMPTS = 10


def stored_side(size: int) -> int:
    """The shorter side that photos are brought to, for networks that see `size` pixels: 256 for 224."""
    return round(size * 256 / 224)


def smaller(photo_CHW: Tensor, side: int) -> Tensor:
    """The photo with its shorter side brought down to `side`; smaller ones stay as they are."""
    return photo_CHW if min(photo_CHW.shape[1:]) <= side else views.resize(photo_CHW, [side], antialias=True)


def centre(photo_CHW: Tensor, size: int) -> Tensor:
    """(C, S, S): the shorter side at `stored_side`, then the centre."""
    if min(photo_CHW.shape[1:]) != stored_side(size):
        photo_CHW = views.resize(photo_CHW, [stored_side(size)], antialias=True)
    return views.center_crop(photo_CHW, [size, size])


def random_part(photo_CHW: Tensor, size: int, generator: Generator) -> Tensor:
    """(C, S, S): a random part, scaled, and mirrored half of the time. Always draws the same amount of numbers."""
    top, left, height, width = random_box(photo_CHW.shape[1], photo_CHW.shape[2], generator)
    part = views.resized_crop(photo_CHW, top, left, height, width, [size, size], antialias=True)
    mirrored = bool(torch.rand((), generator=generator) < 0.5)
    return views.horizontal_flip(part) if mirrored else part


def random_box(height: int, width: int, generator: Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a part: area and ratio uniform in `SCALE` and (its logarithm) in `RATIO`; after ten
    attempts that do not fit, the largest centre part of an allowed ratio."""
    draws = torch.rand(ATTEMPTS, 4, generator=generator, dtype=torch.float64).tolist()
    low, high = (math.log(ratio) for ratio in RATIO)
    for area_share, log_ratio, down, across in draws:
        area = height * width * (SCALE[0] + area_share * (SCALE[1] - SCALE[0]))
        ratio = math.exp(low + log_ratio * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(across * (width - w + 1)), h, w
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    return (height - h) // 2, (width - w) // 2, h, w
