"""A dry run: one pass on the meta device, which computes shapes and nothing else, fills in what a network's parts are.

Multiply-adds are what torch's own counter counts (convolutions, linears, attention products), halved: biases, norms,
activations and sums are not multiply-adds.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spnet.network.block import Block

Shape = tuple[int, ...]


@dataclass(frozen=True)
class DryRun:
    """What one image meets on its way. Shapes are without the batch; multiply-adds are per image.

    Attributes:
        shapes: of the features before each block, and after the last: one more than there are blocks.
        widths: of those features pooled, which is what routers and stage heads read.
        stem_macs, block_macs, head_macs: the blocks' per option; the head's with neck and pool.
        num_classes: width of the logits.
    """

    shapes: tuple[Shape, ...]
    widths: tuple[int, ...]
    stem_macs: int
    block_macs: tuple[tuple[int, ...], ...]
    head_macs: int
    num_classes: int


def dry_run(
    stem: nn.Module,
    blocks: Sequence[Block],
    neck: nn.Module,
    pool: nn.Module,
    head: nn.Module,
    input_shape: tuple[int, int, int],
) -> DryRun:
    """Send one image of `input_shape` through every option of every block. No weight is read, no number drawn."""
    parts = _Parts(stem, blocks, neck, pool, head)
    like = next(parts.parameters(), torch.empty(0))
    image = torch.empty(1, *input_shape, dtype=like.dtype, device="meta")
    meta = {
        name: torch.empty_like(value, device="meta")
        for name, value in (*parts.named_parameters(), *parts.named_buffers())
    }
    with evaluating(parts), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        return torch.func.functional_call(parts, meta, (image, counter.get_total_flops))


class _Parts(nn.Module):
    def __init__(
        self, stem: nn.Module, blocks: Sequence[Block], neck: nn.Module, pool: nn.Module, head: nn.Module
    ) -> None:
        super().__init__()
        self.stem, self.neck, self.pool, self.head = stem, neck, pool, head
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor, flops: Callable[[], int]) -> DryRun:
        def counted(module: nn.Module, *inputs: Tensor | int) -> tuple[Tensor, int]:
            before = flops()
            y = module(*inputs)
            return y, (flops() - before) // 2

        x, stem_macs = counted(self.stem, image)
        shapes, widths, block_macs = [tuple(x.shape[1:])], [self.pool(x).shape[1]], []
        known: dict[Hashable, tuple[Tensor, int, tuple[int, ...]]] = {}
        for block in self.blocks:
            met = (structure(block), x.shape)
            if met not in known:
                runs = [counted(block, x, option) for option in range(block.num_options)]  # type: ignore[arg-type]
                y = runs[-1][0]
                known[met] = y, self.pool(y).shape[1], tuple(macs for _, macs in runs)
            x, width, macs = known[met]
            shapes.append(tuple(x.shape[1:]))
            widths.append(width)
            block_macs.append(macs)
        before = flops()
        logits = self.head(self.pool(self.neck(x)))
        head_macs = (flops() - before) // 2
        return DryRun(tuple(shapes), tuple(widths), stem_macs, tuple(block_macs), head_macs, logits.shape[1])


def structure(module: nn.Module) -> Hashable:
    """Equal for modules that do the same work on the same shapes, whatever their weights: classes, plain attributes and
    shapes. ResNet-110 has 54 blocks and five structures. What cannot be compared counts as different."""

    def own(part: nn.Module) -> Hashable:
        plain = ((key, value) for key, value in vars(part).items() if key[0] != "_" and key not in ("training", "macs"))
        tensors = (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))
        return (
            type(part),
            tuple((key, value if isinstance(value, Hashable) else id(value)) for key, value in plain),
            tuple((key, tuple(tensor.shape)) for key, tensor in tensors),
        )

    return tuple((name, own(part)) for name, part in module.named_modules())


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while; each part then returns to the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
