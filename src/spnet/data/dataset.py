"""What a data set is here: two splits of uint8 images and integer labels, and how to normalise and augment them.

Shape legend: N images, C channels, H x W pixels, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spnet.errors import UserError


@dataclass(frozen=True)
class Split:
    """Images and their labels, kept as bytes so that a whole data set lives on the device.

    images: uint8 (N, C, H, W), 0..255. labels: int64 (N,). Raises ValueError on other types or shapes.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 (N, C, H, W), not {self.images.dtype} {tuple(self.images.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int64 (N,), not {self.labels.dtype} {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> "Split":
        """The same split on `device` (no copy if it is there already)."""
        return Split(self.images.to(device), self.labels.to(device))

    def select(self, indices: Tensor | Sequence[int]) -> "Split":
        """The images at `indices`, in that order."""
        index_N = torch.as_tensor(indices, dtype=torch.int64, device=self.images.device)
        return Split(self.images.index_select(0, index_N), self.labels.index_select(0, index_N))


@dataclass(frozen=True)
class Augmentation:
    """Random shift by up to `pad` pixels each way (zeros come in), and a mirror image half of the time.

    `Augmentation(pad=0, flip=False)` is none.
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise UserError(f"the augmentation's pad must be 0 or more pixels, not {self.pad}")


@dataclass(frozen=True)
class Dataset:
    """A named image-classification task.

    mean, std: per channel, in units of 255 grey levels (0..1).
    named: False where `classes` are mere numbers, because the data carry no names.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    named: bool = True

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.train.images.shape[2], self.train.images.shape[3]

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with both splits on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def mirrored(self, flip: str) -> "Dataset":
        """The same data set with mirror images switched on ("true") or off ("false"); as it is for "auto"."""
        if flip == "auto":
            return self
        return replace(self, augmentation=replace(self.augmentation, flip=flip == "true"))

    def validated(self) -> "Dataset":
        """This data set, once it is known to be usable; else a UserError that says what is wrong."""
        for part, split in (("training", self.train), ("test", self.test)):
            if len(split) == 0:
                raise UserError(f"data '{self.name}': the {part} part has no images; give at least one")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.num_classes:
                raise UserError(
                    f"data '{self.name}': the {part} labels run from {low} to {high}, but {self.num_classes} classes "
                    f"need labels 0 to {self.num_classes - 1}; correct the labels or the class names"
                )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise UserError(
                f"data '{self.name}': training images are {_size(self.train)} but test images are {_size(self.test)}; "
                "make them equal"
            )
        if int(self.train.labels.unique().numel()) < 2:
            raise UserError(f"data '{self.name}': all training images are of one class; give at least two classes")
        if not len(self.mean) == len(self.std) == self.in_channels or min(self.std) <= 0:
            raise ValueError(
                f"mean {self.mean} and std {self.std} must be per channel ({self.in_channels}), std above 0"
            )
        return self


def _size(split: Split) -> str:
    """Width x height and channels of a split's images, in words."""
    _, channels, height, width = split.images.shape
    return f"{width}x{height} with {channels} channel{'s' if channels != 1 else ''}"
