"""What a graph takes for images."""

import numpy as np
import torch

from spnet.inference.runtimes.protocol import Images
from spnet.network.dynamic import DynamicNetwork


class Pixels:
    """Images -> what a graph takes: as `DynamicNetwork.prepare`, by numpy. Between two runs of a network its weights
    have pushed all else out of the cache, where each first torch function costs a tenth of a millisecond; and numpy
    keeps no threads that a forked child would miss."""

    def __init__(self, net: DynamicNetwork) -> None:
        self.mean, self.std = (values.numpy().astype(np.float32) for values in (net.mean, net.std))

    def __call__(self, images: Images) -> np.ndarray:
        """(B, C, H, W) uint8 or float -> normalised float32."""
        if isinstance(images, np.ndarray):
            array = images
        else:
            array = (images if images.dtype == torch.uint8 else images.detach().float()).cpu().numpy()
        if array.dtype != np.uint8:
            return np.ascontiguousarray(array, np.float32)
        scaled = array.astype(np.float32, order="C")
        scaled /= 255
        scaled -= self.mean
        scaled /= self.std
        return scaled
