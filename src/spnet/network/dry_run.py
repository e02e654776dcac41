"""A dry run: one image goes once through every kind of block there is, and shapes, widths and multiply-adds are read
off. Nobody writes them by hand.

Blocks of equal structure on equal shapes run once: ResNet-110 has 54 blocks and five structures, ViT-B 24 and two.
Deviation from the obvious: the image really runs, on the device of the weights; torch's meta device, and its own
counter, import seconds of compiler before the first shape is known.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from spnet.network.block import Block
from spnet.network.modes import evaluating

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
    """Send one image of `input_shape` through every option of every block, in eval mode. Nothing is changed, no number
    drawn; hooks on the parts do fire."""
    whole = nn.ModuleList((stem, *blocks, neck, pool, head))
    like = next(whole.parameters(), torch.empty(0))
    image = torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device)
    with evaluating(whole), counting() as count:

        def counted(module: Callable[..., Tensor], *inputs: Tensor | int) -> tuple[Tensor, int]:
            before = count.macs
            return module(*inputs), count.macs - before

        x, stem_macs = counted(stem, image)
        shapes, widths, block_macs = [tuple(x.shape[1:])], [pool(x).shape[1]], []
        known: dict[Hashable, tuple[Tensor, int, tuple[int, ...]]] = {}
        for block in blocks:
            met = (structure(block), x.shape)
            if met not in known:
                runs = [counted(block, x.clone(), option) for option in range(block.num_options)]
                y = runs[-1][0]
                known[met] = y, pool(y).shape[1], tuple(macs for _, macs in runs)
            x, width, macs = known[met]
            shapes.append(tuple(x.shape[1:]))
            widths.append(width)
            block_macs.append(macs)
        logits, head_macs = counted(lambda x: head(pool(neck(x))), x)
    return DryRun(tuple(shapes), tuple(widths), stem_macs, tuple(block_macs), head_macs, logits.shape[1])


class MacCounter(TorchDispatchMode):
    """Counts the multiply-adds of convolutions and matrix products, as `torch.utils.flop_counter` does (it counts two
    FLOPs for each): biases, norms, activations and sums are none. Attention counts where it is matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; the default imports the whole compiler to say so

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        if name == "aten::convolution":
            x, weight, transposed = args[0], args[1], args[6]
            self.macs += (x if transposed else out).numel() * math.prod(weight.shape[1:])
        elif name in _PRODUCTS:
            self.macs += out.numel() * args[_PRODUCTS[name]].shape[-1]
        return out


_PRODUCTS = {"aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1, "aten::baddbmm": 1, "aten::_addmm_activation": 1}
"""Matrix products, and which argument is the left factor."""


@contextmanager
def counting() -> Iterator[MacCounter]:
    """Count what runs without gradients; attention is computed as the matrix products it is, not by fused kernels."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), MacCounter() as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


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
