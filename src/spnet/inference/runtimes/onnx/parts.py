"""A network taken apart into modules that become ONNX nodes: what `DynamicNetwork.forward` calls, in its order.

Everything is run once on two blank images, so that shapes are known; each part is then exported once per structure.

Shapes: n samples, N blocks, K options of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from spnet.backbones.base import Block
from spnet.errors import UserError
from spnet.inference.runtimes.onnx.fragment import Fragment, fragments
from spnet.inference.runtimes.onnx.graph import Graph
from spnet.inference.runtimes.onnx.passes import splice
from spnet.inference.runtimes.onnx.structure import Part, Weights, at_test, record
from spnet.network.dynamic import DynamicNetwork
from spnet.network.heads import StageHeads
from spnet.routers.base import Router

BATCH = 2
"""Of the examples: torch.export takes a batch of one as a fact."""


class Piece:
    """A part and, once exported, its nodes."""

    fragment: Fragment

    def __init__(self, part: Part) -> None:
        self.part = part

    def __call__(self, g: Graph, *inputs: str) -> list[str]:
        """Write it into a graph; returns its outputs."""
        return splice(g, self.part, self.fragment, inputs)

    def one(self, g: Graph, *inputs: str) -> str:
        return self(g, *inputs)[0]

    @property
    def keeps_the_state(self) -> bool:
        """Of an `observe`: it hands on the state as it was, whatever the gate."""
        return self.part.routes == tuple(~k for k in range(1, len(self.part.inputs)))

    def reads(self, k: int) -> bool:
        """Whether input k matters."""
        return f"x{k}" in self.fragment.reads or ~k in self.part.routes


@dataclass
class Parts:
    """A network's pieces.

    Attributes:
        blocks: of each block, its options by number; an option that is the identity by the block's word has none.
        neck: features of the last block -> what is pooled for the head.
        pools: what pools features before the first block and after each; the last one reads the neck.
        begin: image -> the router's first state.
        steps, observes: of each gated block: (x, pooled, *state) -> (logits, *state); (gate, *state) -> state.
        stage_heads: pooled features -> logits, of each stage that has a head of its own.
        rank: dimensions of features before each block.
    """

    stem: Piece
    neck: Piece
    head: Piece
    blocks: list[dict[int, Piece]] = field(default_factory=list)
    pools: list[Piece] = field(default_factory=list)
    begin: Piece | None = None
    steps: dict[int, Piece] = field(default_factory=dict)
    observes: dict[int, Piece] = field(default_factory=dict)
    stage_heads: list[Piece] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)

    def __iter__(self):
        yield from (self.stem, self.neck, self.head, *self.pools, *self.steps.values(), *self.observes.values())
        yield from self.stage_heads
        yield from (piece for options in self.blocks for piece in options.values())
        if self.begin is not None:
            yield self.begin


def take_apart(net: DynamicNetwork, path: Sequence[int] | None = None, *, heads: bool = False) -> Parts:
    """All of a network's pieces; with a path (N options), what lies on it, without router.

    Args:
        heads: with the stage heads.

    Raises:
        UserError: torch.onnx cannot export one of them.
    """
    with at_test(net):
        parts = _Taking(net, path, heads).parts
        pieces = list(parts)
        for piece, found in zip(pieces, fragments([piece.part for piece in pieces]), strict=True):
            piece.fragment, piece.part = found, piece.part.without_examples()
    return parts


class _Taking:
    """The run over the network in which its pieces are recorded."""

    def __init__(self, net: DynamicNetwork, path: Sequence[int] | None, heads: bool) -> None:
        backbone = net.backbone
        weight = next(backbone.parameters())
        image = weight.new_zeros(BATCH, *net.input_shape)
        weights = Weights(net)

        def piece(module: nn.Module, *inputs: Tensor) -> Piece:
            try:
                return Piece(record(module, *inputs, weights=weights))
            except Exception as error:
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                raise UserError(f"{module.title} has no ONNX form, it fails on blank images: {why[:120]}") from error

        router = net.router if path is None else None
        state: tuple[Tensor, ...] = ()
        begin = piece(_Begin(router), image) if router is not None else None
        if begin is not None:
            state = begin.part.outputs
        stem = piece(_Named(backbone.stem, "the stem"), image)
        x = stem.part.outputs[0]
        self.parts = parts = Parts(stem, stem, stem, begin=begin)
        pool = _Named(backbone.pool, "the pool")
        parts.pools.append(piece(pool, x))
        for i, block in enumerate(net.blocks):
            parts.ranks.append(x.dim())
            if router is not None and net.gated[i]:
                pooled = parts.pools[-1].part.outputs[0]
                step = piece(_Step(router, i), x, pooled, *state)
                _, *rest = step.part.outputs
                gate = torch.eye(net.options[i], dtype=x.dtype, device=x.device)[-1].expand(BATCH, -1)
                observe = piece(_Observe(router, i), gate, *rest)
                parts.steps[i], parts.observes[i] = step, observe
                state = observe.part.outputs
            last = net.options[i] - 1
            options = [path[i]] if path is not None else range(net.options[i]) if net.gated[i] else [last]
            pieces = {k: piece(_Option(block, k, i), x) for k in options if k or not block.identity_skip}
            parts.blocks.append(pieces)
            goes_on = path[i] if path is not None else last
            x = pieces[goes_on].part.outputs[0] if goes_on in pieces else x
            parts.pools.append(piece(pool, x))
            ends = backbone.stages.last_blocks
            if heads and i in ends:
                assert net.stage_heads is not None, "early exit needs stage heads"
                if (stage := ends.index(i)) in net.stage_heads.stages:
                    pooled = parts.pools[-1].part.outputs[0]
                    parts.stage_heads.append(piece(_StageHead(net.stage_heads, stage), pooled))
        parts.neck = piece(_Named(backbone.neck, "the neck"), x)
        parts.pools[-1] = piece(pool, *parts.neck.part.outputs)
        parts.head = piece(_Named(backbone.head, "the head"), *parts.pools[-1].part.outputs)


class _Named(nn.Module):
    """A module called as it is; `title` names it where it cannot be exported."""

    def __init__(self, module: nn.Module, title: str) -> None:
        super().__init__()
        self.module = module
        self.title = f"{title} ({type(module).__name__})"

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


class _Option(nn.Module):
    """One option of a block."""

    def __init__(self, block: Block, option: int, place: int) -> None:
        super().__init__()
        self.block = block
        self.option = option
        self.title = f"option {option} of block {place} ({type(block).__name__})"

    def forward(self, x: Tensor) -> Tensor:
        return self.block.run(x, self.option)


class _StageHead(nn.Module):
    def __init__(self, heads: StageHeads, stage: int) -> None:
        super().__init__()
        self.heads = heads
        self.stage = stage
        self.title = f"the head of stage {stage}"

    def forward(self, pooled: Tensor) -> Tensor:
        return self.heads.classify(self.stage, self.heads.align(self.stage, pooled))


class _Begin(nn.Module):
    def __init__(self, router: Router) -> None:
        super().__init__()
        self.router = router
        self.title = f"the start of router {type(router).__name__}"

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.router.begin(image))


class _Step(nn.Module):
    def __init__(self, router: Router, place: int) -> None:
        super().__init__()
        self.router = router
        self.place = place
        self.title = f"router {type(router).__name__} at block {place}"

    def forward(self, x: Tensor, pooled: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, state = self.router.step(state, self.place, x, pooled)
        return (logits, *state)


class _Observe(nn.Module):
    def __init__(self, router: Router, place: int) -> None:
        super().__init__()
        self.router = router
        self.place = place
        self.title = f"router {type(router).__name__} after block {place}"

    def forward(self, gate: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.router.told(state, self.place, gate))
