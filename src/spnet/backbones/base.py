"""What a backbone is: a stem, a list of blocks cut into stages, a neck, a pool, a head. It runs in full by itself.

Shapes: B samples, N blocks, C channels, K_i options of block i.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate

from torch import Tensor, nn

from spnet.errors import UserError, did_you_mean
from spnet.network.block import Block
from spnet.network.dry_run import dry_run

__all__ = ["Backbone", "Block", "Stages"]


class Stages(nn.ModuleList):
    """How a list of blocks is cut into stages: stage s is blocks[ends[s-1]:ends[s]]. One module a stage, through which
    the features at its end pass unchanged, so that a hook on a stage sees them.

    Args:
        lengths: how many blocks each stage has.
        names: what `exits` calls each stage; "stage1", "stage2" ... when left out.
    """

    def __init__(self, lengths: Sequence[int], names: Sequence[str] | None = None) -> None:
        super().__init__(nn.Identity() for _ in lengths)
        self.lengths = tuple(lengths)
        self.names = tuple(names or (f"stage{s + 1}" for s in range(len(self.lengths))))

    @property
    def slices(self) -> tuple[slice, ...]:
        ends = accumulate(self.lengths)
        return tuple(slice(end - length, end) for end, length in zip(ends, self.lengths, strict=True))

    @property
    def last_blocks(self) -> tuple[int, ...]:
        """Index of the last block of each stage."""
        return tuple(part.stop - 1 for part in self.slices)


class Backbone(nn.Module):
    """A plain network in the parts the dynamic network needs. Final: families build it, nobody inherits. Shapes, widths
    and multiply-adds come from one dry run.

    Args:
        name: what the user calls it.
        stem: image (B, C_in, H, W) -> features.
        blocks: in order; those with one option always run.
        stages: how many blocks each stage has; or a function of the features' shapes, before each block and after the
            last.
        pool: features -> (B, C): what routers, stage heads and the head read.
        head: pooled features -> class logits.
        neck: features of the last block -> features that are pooled for the head (a last convolution or norm).
        input_shape: (C_in, H, W) the multiply-adds are counted for.
        block_names: what `blocks` and `ignore` call each block; "blocks.0", "blocks.1" ... when left out.

    Attributes:
        input_widths, output_widths: C of each block's pooled input and output.
        input_shapes: of each block's input, without the batch.
        stem_macs, head_macs: multiply-adds per sample; `blocks[i].macs` those of each option.
        num_classes: width of the logits.
    """

    def __init__(
        self,
        *,
        name: str,
        stem: nn.Module,
        blocks: Sequence[Block],
        stages: Sequence[int] | Callable[[Sequence[tuple[int, ...]]], Stages],
        pool: nn.Module,
        head: nn.Module,
        neck: nn.Module | None = None,
        input_shape: tuple[int, int, int],
        block_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.pool = pool
        self.neck = neck if neck is not None else nn.Identity()
        self.block_names = tuple(block_names or (f"blocks.{i}" for i in range(len(blocks))))
        self.input_shape = input_shape
        found = dry_run(self.stem, blocks, self.neck, self.pool, self.head, input_shape)
        self.stages = stages(found.shapes) if callable(stages) else Stages(stages)
        for block, macs in zip(blocks, found.block_macs, strict=True):
            block.macs = macs
        self.input_shapes = found.shapes[:-1]
        self.input_widths, self.output_widths = found.widths[:-1], found.widths[1:]
        self.stem_macs, self.head_macs = found.stem_macs, found.head_macs
        self.num_classes = found.num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of the plain network: every block in full."""
        x = self.stem(images)
        ends = self.stages.last_blocks
        for i, block in enumerate(self.blocks):
            x = block(x, block.num_options - 1)  # type: ignore[operator]
            if i in ends:
                x = self.stages[ends.index(i)](x)
        return self.head(self.summary(x))

    def summary(self, x: Tensor, pooled_BC: Tensor | None = None) -> Tensor:
        """What the head reads, (B, C): the last block's features x through neck and pool. `pooled_BC` is pool(x) where
        it is known already: without a neck that is the answer."""
        if pooled_BC is not None and isinstance(self.neck, nn.Identity):
            return pooled_BC
        return self.pool(self.neck(x))

    @property
    def stage_widths(self) -> tuple[int, ...]:
        return tuple(self.output_widths[i] for i in self.stages.last_blocks)

    @property
    def options(self) -> tuple[int, ...]:
        """Number of options of each block."""
        return tuple(block.num_options for block in self.blocks)  # type: ignore[misc]

    def matching(self, patterns: Sequence[str], setting: str) -> set[int]:
        """Indices of the blocks whose names match one of `patterns`: a name, what it begins with ("layer1" for
        "layer1.0"), or a shell pattern ("*.mlp"). `UserError` for one without a match; `setting` is where it stood."""
        found: set[int] = set()
        for pattern in patterns:
            matched = {
                i
                for i, name in enumerate(self.block_names)
                if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")
            }
            if not matched:
                known = ", ".join(self.block_names[:3])
                raise UserError(
                    f"{setting} '{pattern}' matches no block of {self.name}."
                    f"{did_you_mean(pattern, self.block_names)} They are called {known} ... {self.block_names[-1]}."
                )
            found |= matched
        return found

    @property
    def static_macs(self) -> int:
        """Multiply-adds per sample of the plain network: every block in full, no router, no stage head."""
        return self.stem_macs + sum(block.macs[-1] for block in self.blocks) + self.head_macs  # type: ignore[index]
