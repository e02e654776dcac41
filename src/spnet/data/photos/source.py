"""A split of photos that are read while they are needed, a few batches ahead.

Shapes: n photos of the split, B photos of a batch, R = B * copies, S the side of what the network sees.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from spnet.data.dataset import Augmentation, Split
from spnet.data.photos.ahead import read_ahead
from spnet.data.photos.reader import Reader
from spnet.data.photos.views import centre, random_part
from spnet.seeds import stream_seed


class Photos:
    """Args:
    reader: shared by all parts of a data set.
    index_n: which of the reader's photos, in order.
    labels: int64 (n,).
    workers: threads that decode; torch and the decoders let each other run.
    """

    def __init__(
        self,
        reader: Reader,
        index_n: Tensor,
        labels: Tensor,
        workers: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.reader = reader
        self.index_n = index_n
        self.labels = labels
        self.workers = workers
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.index_n)

    @property
    def images(self) -> Tensor:
        """uint8 (n, 3, S, S): all of them, read now, as the test sees them."""
        return self.in_memory().images

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network sees."""
        return 3, self.reader.size, self.reader.size

    def to(self, device: torch.device | str) -> "Photos":
        """The same photos, whose batches come on `device`; labels stay on the host."""
        return Photos(self.reader, self.index_n, self.labels, self.workers, device)

    def select(self, indices: Tensor | Sequence[int]) -> "Photos":
        chosen = torch.as_tensor(indices, dtype=torch.int64).cpu()
        return Photos(self.reader, self.index_n[chosen], self.labels[chosen], self.workers, self.device)

    def labelled(self, labels: Tensor) -> "Photos":
        return Photos(self.reader, self.index_n, labels.cpu(), self.workers, self.device)

    def views(self, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
        """One random part of each photo; what is drawn follows from the generator's seed."""
        everything = torch.arange(len(self))
        batches = [images for images, _ in self.epoch(everything, 64, seed=generator.initial_seed())]
        return torch.cat(batches)

    def in_memory(self) -> Split:
        """All of them at once, as the test sees them: for the few hundred that a calibration takes."""
        batches = list(self.in_order(256))
        if not batches:
            return Split(torch.zeros(0, *self.shape, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
        images, labels = (torch.cat(column) for column in zip(*batches, strict=True))
        return Split(images, labels)

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(uint8 (B, 3, S, S), (B,)): the centre of every photo; the next in the split stands for an unreadable one, so
        that there are as many images as the split says, each at its place."""

        def read(place: int) -> tuple[Tensor, int]:
            photo, place = self._readable(place)
            return centre(photo, self.reader.size), place

        batches = (batch.tolist() for batch in torch.arange(len(self)).split(batch_size))
        for found in read_ahead(batches, read, self.workers):
            images = torch.stack([view for view, _ in found])
            yield images.to(self.device), self.labels[[place for _, place in found]].to(self.device)

    def epoch(
        self,
        order_N: Tensor,
        batch_size: int,
        *,
        part: tuple[int, int] = (0, 1),
        copies: int = 1,
        augmented: bool = True,
        seed: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(uint8 (R, 3, S, S), (B,)) in the order given: a random part of each photo.

        What is drawn for a photo follows from `seed` and its number alone: neither the workers nor the batch that it
        falls into change it. An unreadable photo is replaced by the next in the split.

        Args:
            part: (k, n) cuts each batch into n parts of neighbours and takes part k, from 0: what one of n processes
                trains on.
            copies: views of each photo, adjacent.
            augmented: False shows the centre.
        """
        rank, processes = part
        batches = (batch.tensor_split(processes)[rank].tolist() for batch in order_N.cpu().split(batch_size))

        def read(place: int) -> tuple[Tensor, int]:
            photo, place = self._readable(place)
            if not augmented:
                return centre(photo, self.reader.size).expand(copies, -1, -1, -1), place
            number = int(self.index_n[place])
            generators = [torch.Generator().manual_seed(stream_seed(seed, number, copy)) for copy in range(copies)]
            return torch.stack([random_part(photo, self.reader.size, g) for g in generators]), place

        for found in read_ahead(batches, read, self.workers):
            labels = self.labels[[place for _, place in found]]
            yield torch.cat([views for views, _ in found]).to(self.device), labels.to(self.device)

    def view(
        self, augmentation: Augmentation | None, generator: torch.Generator, copies: int
    ) -> Callable[[Tensor], Tensor]:
        """Views were drawn when the photos were read."""
        return lambda images: images

    def _readable(self, place: int) -> tuple[Tensor, int]:
        """The photo at this place of the split, or the first readable one after it, and where that is; black where no
        photo of the split can be read (it is a single one then: the reader stops at many)."""
        for step in range(len(self)):
            other = (place + step) % len(self)
            if (photo := self.reader(int(self.index_n[other]))) is not None:
                return photo, other
        return torch.zeros(self.shape, dtype=torch.uint8), place
