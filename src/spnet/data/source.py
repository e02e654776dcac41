"""What a split of a data set is to the rest of the library: tensors on the device, or photos read while needed.

Shapes: N images, B images of a batch, R = B * copies, C channels, H x W pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    from spnet.data.dataset import Augmentation, Split


S = TypeVar("S", bound="Source")


class Source(Protocol):
    """Fulfilled by `spnet.data.Split` and `spnet.data.photos.Photos`."""

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""
        ...

    @property
    def images(self) -> Tensor:
        """uint8 (N, C, H, W), all of them at once: photos are read for it, so ask it of parts of a few hundred."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what a network sees."""
        ...

    def __len__(self) -> int: ...

    def to(self: S, device: torch.device | str) -> S: ...

    def select(self: S, indices: Tensor | Sequence[int]) -> S:
        """The images at `indices`, in that order."""
        ...

    def labelled(self, labels: Tensor) -> "Source":
        """The same images with other labels, int64 (N,)."""
        ...

    def views(self, augmentation: "Augmentation", generator: Generator) -> Tensor:
        """uint8 (N, C, H, W): one augmented view of each image; for parts of a few hundred images."""
        ...

    def in_memory(self) -> "Split":
        """All of it at once, as the test sees it; for parts of a few hundred images."""
        ...

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(uint8 (B, C, H, W), int64 (B,)) of all images as the test sees them; the last batch may be smaller."""
        ...

    def epoch(
        self, order_N: Tensor, batch_size: int, *, part: tuple[int, int], copies: int, augmented: bool, seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches for training, in the order given: images uint8, and labels (B,). What `view` makes of the images is
        (R, C, H, W).

        Args:
            part: (k, n) cuts each batch into n parts of neighbours (`spnet.shard`) and takes part k, from 0: what one
                of n processes trains on.
            copies: views of each image, adjacent. augmented: whether views differ from what the test sees.
            seed: of the views, where they are drawn on the host.
        """
        ...

    def view(
        self, augmentation: "Augmentation | None", generator: Generator, copies: int
    ) -> Callable[[Tensor], Tensor]:
        """What a training step does with the images of `epoch`, on the device, before it normalises them; an
        augmentation of None leaves them as they are."""
        ...
