"""What a backbone is: a stem, a list of blocks cut into stages, a head.

A *block* offers K *options*: 0 does the least (skip), K - 1 is the full block. It knows the multiply-adds of each
option, work that is always paid included. `run` does exactly one option's work; `mix` computes every option and mixes
them with a gate, which is what training needs. `mix(x, onehot(k)) == run(x, k)` for every k.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Block(Protocol):
    """One gateable unit: a residual block, or half a transformer layer (attention, or MLP)."""

    macs: tuple[int, ...]
    """Multiply-adds per sample of each option, shortcuts included. Its length is the number of options K."""
    identity_skip: bool
    """True when option 0 returns its input unchanged, so that an executor may leave skipped samples untouched."""

    def run(self, x: Tensor, option: int) -> Tensor:
        """Option `option` for every sample of x, and no other work."""
        ...

    def mix(self, x: Tensor, gate_BK: Tensor) -> Tensor:
        """All options, mixed per sample by the gate; differentiable in both."""
        ...


@dataclass(frozen=True)
class Stages:
    """How a list of blocks is cut into stages: stage s is blocks[ends[s-1]:ends[s]]."""

    lengths: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        ends = [sum(self.lengths[: s + 1]) for s in range(len(self.lengths))]
        return tuple(slice(end - length, end) for end, length in zip(ends, self.lengths, strict=True))

    @property
    def last_blocks(self) -> tuple[int, ...]:
        """Index of the last block of each stage."""
        return tuple(part.stop - 1 for part in self.slices)


class Backbone(nn.Module):
    """A plain network in the parts the dynamic network needs. Final: families build it, nobody inherits.

    Args:
        stem: image (B, C_in, H, W) -> features.
        blocks: the gateable blocks, in order; each fulfils `Block`.
        stages: how many blocks each stage has.
        head: pooled features (B, widths[-1]) -> class logits.
        pool: features -> (B, C); global average for images, mean over tokens for transformers.
        input_widths: C of each block's input, which is what its router reads.
        output_widths: C of each block's output.
        stem_macs, head_macs: multiply-adds per sample.
        input_shape: (C_in, H, W) the multiply-adds were counted for.
    """

    def __init__(
        self,
        *,
        name: str,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        stages: tuple[int, ...],
        head: nn.Module,
        pool: nn.Module,
        input_widths: Sequence[int],
        output_widths: Sequence[int],
        stem_macs: int,
        head_macs: int,
        input_shape: tuple[int, int, int],
        num_classes: int,
    ) -> None:
        super().__init__()
        self.name = name
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.pool = pool
        self.stages = Stages(stages)
        self.input_widths = tuple(input_widths)
        self.output_widths = tuple(output_widths)
        self.stem_macs = stem_macs
        self.head_macs = head_macs
        self.input_shape = input_shape
        self.num_classes = num_classes

    @property
    def stage_widths(self) -> tuple[int, ...]:
        return tuple(self.output_widths[i] for i in self.stages.last_blocks)

    @property
    def options(self) -> tuple[int, ...]:
        """Number of options of each block."""
        return tuple(len(block.macs) for block in self.blocks)  # type: ignore[arg-type]

    @property
    def static_macs(self) -> int:
        """Multiply-adds per sample of the plain network: every block in full, no router, no stage head."""
        return self.stem_macs + sum(block.macs[-1] for block in self.blocks) + self.head_macs  # type: ignore[attr-defined]
