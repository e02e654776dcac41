"""A word before a training that will take unexpectedly long."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spnet.data import Dataset

DESIGNED_FOR = 32
"""Pixels a side: what CIFAR's ResNets were drawn for."""
TIMES = 4.0
"""The area, over the design's, from which on a word is due: beyond 64 x 64."""


def size_advice(backbone: str, data: str, dataset: "Dataset") -> str | None:
    """One line if the images are much larger than the CIFAR design of this backbone, with the price; else None."""
    import torch

    from spnet.backbones import create_backbone
    from spnet.backbones.sources import is_foreign

    def macs(height: int, width: int) -> int:
        shape = (dataset.in_channels, height, width)
        with torch.device("meta"):  # no weights, no random numbers
            return create_backbone(backbone, num_classes=dataset.num_classes, input_shape=shape).static_macs

    height, width = dataset.image_size
    if is_foreign(backbone) or height * width <= TIMES * DESIGNED_FOR**2:
        return None
    own, designed = macs(height, width), macs(DESIGNED_FOR, DESIGNED_FOR)
    text = (
        f"images of {width}x{height}: {backbone} is a design for {DESIGNED_FOR}x{DESIGNED_FOR}, and each image costs "
        f"{own / designed:.0f} times as much here, {own / 1e6:.0f} MMACs instead of {designed / 1e6:.0f}"
    )
    kind, _, rest = data.partition(":")
    if kind not in ("folder", "parquet"):
        return text
    return f"{text}; --data '{kind}:{rest.partition('?size=')[0]}?size={DESIGNED_FOR}' resizes them"
