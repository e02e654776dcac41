"""Which images of a batch are here when several processes share it, and random numbers for just these.

A process draws what one process alone would draw for the whole batch, and takes its own rows: an image meets the same
noise however many processes there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """Neighbours in a batch that is cut as evenly as it goes: processes differ by one image at most.

    Args:
        whole: images of the batch, at least one a process.
        rank: of this process. processes: how many share the batch.

    Example:
        >>> shard = Shard(whole=8, rank=1, processes=3)
        >>> shard.counts, shard.of(torch.arange(8)).tolist()
        ((3, 3, 2), [3, 4, 5])
    """

    whole: int
    rank: int
    processes: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Images of each process."""
        each, more = divmod(self.whole, self.processes)
        return tuple(each + (rank < more) for rank in range(self.processes))

    def rows(self, here: int) -> tuple[int, ...]:
        """Rows of each process where this one has `here`: as many for every image (copies have rows of their own)."""
        copies, rest = divmod(here, self.counts[self.rank])
        if rest:
            raise ValueError(f"{here} rows are not equally many for each of {self.counts[self.rank]} images.")
        return tuple(copies * count for count in self.counts)

    def of(self, x: Tensor, dim: int = 0) -> Tensor:
        """The rows of this process, a view, out of those of the whole batch."""
        copies = x.shape[dim] // self.whole
        first = sum(self.counts[: self.rank])
        return x.narrow(dim, copies * first, copies * self.counts[self.rank])


class ShardGenerator(torch.Generator):
    """A generator that stands at the same place in every process that shares a batch."""

    shard: Shard


def drawn(
    draw: Callable[[tuple[int, ...]], Tensor],
    shape: Sequence[int],
    generator: torch.Generator | None,
    dim: int = 0,
) -> Tensor:
    """`draw(shape)`, random numbers from `generator`, one row an image; from a `ShardGenerator` the rows of this
    process out of what is drawn for the whole batch.

    Args:
        draw: shape -> tensor; takes its numbers from `generator` and nowhere else.
        dim: where the rows lie.
    """
    if not isinstance(generator, ShardGenerator):
        return draw(tuple(shape))
    whole = list(shape)
    whole[dim] = sum(generator.shard.rows(whole[dim]))
    return generator.shard.of(draw(tuple(whole)), dim)
