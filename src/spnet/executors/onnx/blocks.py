"""Blocks as ONNX nodes: exactly one option's work, as `Block.run` does. A block type is one function here."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from spnet.backbones.base import Block
from spnet.backbones.cifar_resnet import BasicBlock, PadShortcut
from spnet.errors import UserError
from spnet.executors.onnx.graph import Graph
from spnet.executors.onnx.layers import anchored, emit_layers, emit_pad_shortcut, emit_relu

BlockEmitter = Callable[[Graph, Any, int, str], str]
"""(graph, block, option, x) -> y. Weights must be constants of the graph given."""

_BLOCKS: dict[type, BlockEmitter] = {}
F = TypeVar("F", bound=BlockEmitter)


def emits_block(kind: type) -> Callable[[F], F]:
    """Register the emitter of a block type."""

    def register(emitter: F) -> F:
        _BLOCKS[kind] = emitter
        return emitter

    return register


def block_emitter(block: Block) -> BlockEmitter:
    """The emitter of a block; `UserError` for a block type without an ONNX form."""
    if type(block) not in _BLOCKS:
        raise UserError(
            f"no ONNX form for blocks of type {type(block).__name__}: use executor 'branching' or 'gathered'."
        )
    return _BLOCKS[type(block)]


def emit_block(g: Graph, block: Block, option: int, x: str) -> str:
    """Option `option` of a block applied to x."""
    return block_emitter(block)(g, block, option, x)


@emits_block(BasicBlock)
def _basic_block(g: Graph, block: BasicBlock, option: int, x: str) -> str:
    if option == 0:
        if block.identity_skip:
            return x
        if block.rule.skip == "own-projection":
            return emit_layers(g, block.own_skip, x)
        shortcut = _shortcut(g, block, x)
        return emit_relu(g, shortcut) if block.rule.skip == "relu" else shortcut
    h = emit_relu(g, emit_layers(g, block.residual1, x))
    if option == block.num_options - 1:
        h = emit_layers(g, block.residual2, h)
    return emit_relu(g, g.add("Add", h, _shortcut(g, block, x)))


def _shortcut(g: Graph, block: BasicBlock, x: str) -> str:
    if isinstance(block.shortcut, PadShortcut):
        convolution: nn.Conv2d = block.residual1[0]  # type: ignore[assignment]
        return emit_pad_shortcut(g, block.shortcut, x, convolution.in_channels)
    return anchored(g, x) if block.identity_skip else emit_layers(g, block.shortcut, x)
