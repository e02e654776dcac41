"""The 1,797 scanned digits that come with scikit-learn: 8 x 8 pixels, ten classes; no download, seconds an epoch.

They prove that code works; 450 test images rank nothing (a standard error near 0.6 points).
"""

import numpy as np
import torch

from spnet.data.dataset import Augmentation, Dataset, Split
from spnet.data.statistics import channel_statistics
from spnet.data.subset import stratified_part

TEST_IMAGES = 450


def load() -> Dataset:
    """1,347 training and 450 test images (N, 1, 8, 8); the split is stratified, by index, independent of any seed."""
    from sklearn.datasets import load_digits

    pixels_NP, label_N = load_digits(return_X_y=True)  # values 0..16
    images_NCHW = np.rint(np.asarray(pixels_NP) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    everything = Split(torch.from_numpy(images_NCHW), torch.from_numpy(np.asarray(label_N, dtype=np.int64)))
    train, test = stratified_part(everything, TEST_IMAGES)
    mean, std = channel_statistics(train.images)
    return Dataset(
        name="digits",
        train=train,
        test=test,
        classes=tuple(str(digit) for digit in range(10)),
        mean=mean,
        std=std,
        augmentation=Augmentation(pad=1, flip=False),
    )
