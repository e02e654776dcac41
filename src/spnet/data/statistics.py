"""What can be told from the images themselves: mean and standard deviation of each channel, a sensible augmentation."""

import torch
from torch import Tensor

from spnet.data.dataset import Augmentation, Dataset, Split


def measured_dataset(name: str, train: Split, test: Split, classes: tuple[str, ...], *, named: bool = True) -> Dataset:
    """A data set of unknown content: statistics of its own training images; shifts of up to an eighth of the shorter
    side, and mirror images only if it is in colour (grey pictures are often writing; the setting
    `flip` decides otherwise)."""
    mean, std = channel_statistics(train.images)
    _, channels, height, width = train.images.shape
    augmentation = Augmentation(pad=min(height, width) // 8, flip=channels == 3)
    return Dataset(name, train, test, classes, mean, std, augmentation, named)


def channel_statistics(images_NCHW: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel (mean, std) of uint8 images, as shares of 255; population std over all pixels of all images.

    A channel that never varies gets std 1, so that normalising it gives zeros instead of infinities.
    """
    grey_256 = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images_NCHW.shape[1]):
        counts_256 = torch.zeros(256, dtype=torch.float64)
        for chunk in images_NCHW[:, channel].split(4096):
            counts_256 += torch.bincount(chunk.reshape(-1).cpu(), minlength=256)
        share_256 = counts_256 / counts_256.sum()
        mean = float((share_256 * grey_256).sum())
        variance = float((share_256 * (grey_256 - mean) ** 2).sum())
        means.append(mean)
        stds.append(variance**0.5 if variance > 1e-12 else 1.0)
    return tuple(means), tuple(stds)
