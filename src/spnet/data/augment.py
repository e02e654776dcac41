"""Batched augmentation and normalisation, on the device the images are on, without work per image on the host.

Pure functions: random numbers come only from the generator given. Every call draws the same amount of them whatever the
settings are, so switching the shift or the flip off leaves all later draws as they were. A generator on the images'
device avoids a copy from the host.

Shape legend: B images, R = B * copies results, C channels, H x W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from spnet.data.dataset import Augmentation
from spnet.shard import drawn


def augment(images_BCHW: Tensor, augmentation: Augmentation, generator: Generator, copies: int = 1) -> Tensor:
    """uint8 (B, C, H, W) -> uint8 (B * copies, C, H, W), each copy of an image drawn anew.

    The copies of one image are adjacent: image 0 copy 0, image 0 copy 1, image 1 copy 0, ...
    """
    if copies < 1:
        raise ValueError(f"copies must be 1 or more, not {copies}")
    if copies > 1:
        images_BCHW = images_BCHW.repeat_interleave(copies, dim=0)
    images_RCHW = pad_crop(images_BCHW, augmentation.pad, generator)
    mirrored_RCHW = flip(images_RCHW, generator)
    return mirrored_RCHW if augmentation.flip else images_RCHW


def pad_crop(images_BCHW: Tensor, pad: int, generator: Generator) -> Tensor:
    """Shift each image by its own whole number of pixels in -pad..pad, down and across; zeros come in at the edges.

    The same as a random H x W window of the image padded with `pad` zeros. dtype and shape are kept.
    """
    count, channels, height, width = images_BCHW.shape
    device = images_BCHW.device
    offset_2B = _uniform((2, count), generator, device)
    if pad == 0:
        return images_BCHW
    down_B, across_B = (offset_2B * (2 * pad + 1)).long().clamp_(max=2 * pad)
    wide, high = width + 2 * pad, height + 2 * pad
    pixels = F.pad(images_BCHW, (pad, pad, pad, pad)).reshape(-1)
    # Every run of `width` consecutive pixels, as overlapping rows of one view: a window is then H whole rows of it,
    # copied row by row (five to twenty times faster than an index for every pixel).
    runs = pixels.as_strided((pixels.numel() - width + 1, width), (1, 1))
    plane_BC1 = torch.arange(count * channels, device=device).view(count, channels, 1)
    row_B1H = down_B.view(count, 1, 1) + torch.arange(height, device=device)
    start_BCH = (plane_BC1 * high + row_B1H) * wide + across_B.view(count, 1, 1)
    return runs.index_select(0, start_BCH.reshape(-1)).view(count, channels, height, width)


def flip(images_BCHW: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    count, device = len(images_BCHW), images_BCHW.device
    mirrored_B = _uniform((count,), generator, device) < 0.5
    # Whole images are picked from both versions (four times faster than `torch.where` on bytes).
    both_2BCHW = torch.cat((images_BCHW, images_BCHW.flip(3)))
    return both_2BCHW.index_select(0, torch.arange(count, device=device) + count * mirrored_B)


def normalise(
    images_BCHW: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
) -> Tensor:
    """uint8 (B, C, H, W) -> (image / 255 - mean) / std per channel, worked out in float32, then cast to `dtype`."""
    # Constants are filled on the device: no tensor is copied from the host, so a step stays capturable in a graph.
    scale_C11 = _per_channel([1 / (255 * s) for s in std], images_BCHW.device)
    shift_C11 = _per_channel([-m / s for m, s in zip(mean, std, strict=True)], images_BCHW.device)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return (images_BCHW * scale_C11).add_(shift_C11).to(dtype).contiguous(memory_format=memory_format)


def _uniform(shape: tuple[int, ...], generator: Generator, device: torch.device) -> Tensor:
    """float32 in [0, 1), drawn where the generator is, on `device`."""
    even = drawn(
        lambda whole: torch.rand(whole, generator=generator, device=generator.device), shape, generator, dim=-1
    )
    return even.to(device, non_blocking=device.type != "cpu")


def _per_channel(values: list[float], device: torch.device) -> Tensor:
    """float32 (C, 1, 1) on the device."""
    return torch.cat([torch.full((1, 1, 1), value, device=device, dtype=torch.float32) for value in values])
