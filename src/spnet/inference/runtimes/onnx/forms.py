"""How decisions become work in a graph: a branch for one image, gathered rows for any number.

Shapes: n samples in hand (B at first, fewer after an early exit).
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from onnx import TensorProto

from spnet.inference.runtimes.onnx.decisions import Decision, rows_of
from spnet.inference.runtimes.onnx.graph import Graph
from spnet.inference.runtimes.onnx.parts import Piece

Values = dict[str, str]
"""Outputs by name; the samples in hand are their first dimension."""
Options = Mapping[int, Piece]
"""A block's options by number; one that is the identity may be missing."""
Take = Callable[[str], str]
"""A value of all samples in hand -> of those that stay."""

KINDS = {
    "logits": TensorProto.FLOAT,
    "decisions": TensorProto.INT64,
    "router_logits": TensorProto.FLOAT,
    "exit_stage": TensorProto.INT64,
}
"""What a graph can put out."""


class Form(Protocol):
    @property
    def batch(self) -> int | str:
        """The size of a batch, as ONNX wants it said."""
        ...

    def choose(self, g: Graph, options: Options, decision: Decision, x: str, rank: int) -> str:
        """The decided option of each sample, applied to features x of `rank` dimensions."""
        ...

    def fill(self, g: Graph, values: str, like: str, width: int) -> str:
        """Values (1, width) for each of the samples of `like`."""
        ...

    def part(self, g: Graph, stay: str, gone: Mapping[str, str], go_on: Callable[[Graph, Take], Values]) -> Values:
        """Samples part: those of `stay` (n, 1) go on in the graph that `go_on` is given, the others end as `gone`."""
        ...


class Single:
    """One image: an `If` where there is something to decide, the weights of a branch inside the branch."""

    batch: int | str = 1

    def choose(self, g: Graph, options: Options, decision: Decision, x: str, rank: int) -> str:
        """A chain of `If`s from the full option down."""

        def options_up_to(g: Graph, k: int) -> str:
            if k == 0:
                y = apply(g, options, 0, x)
                return g.add("Identity", y) if y == x else y
            return g.if_else(conditions[k], branch(k, exactly=True), branch(k - 1, exactly=False))

        def branch(k: int, exactly: bool) -> tuple[Graph, str]:
            inner = g.branch()
            return inner, apply(inner, options, k, x) if exactly else options_up_to(inner, k)

        conditions = {k: decision.takes(g, k) for k in range(1, decision.options)}
        return options_up_to(g, decision.options - 1)

    def fill(self, g: Graph, values: str, like: str, width: int) -> str:
        return values

    def part(self, g: Graph, stay: str, gone: Mapping[str, str], go_on: Callable[[Graph, Take], Values]) -> Values:
        going, leaving = g.branch(), g.branch()
        rest = go_on(going, lambda value: value)
        found = g.if_else_many(
            stay,
            (going, [going.add("Identity", rest[name]) for name in gone]),
            (leaving, [leaving.add("Identity", value) for value in gone.values()]),
            [KINDS[name] for name in gone],
        )
        return dict(zip(gone, found, strict=True))


class Rows:
    """Any number of images: each option gathers the samples that take it; an option nobody takes costs nothing."""

    batch: int | str = "batch"

    def choose(self, g: Graph, options: Options, decision: Decision, x: str, rank: int) -> str:
        first = min(options)  # skipped samples stay where they are
        rows = [rows_of(g, decision.takes(g, k)) for k in range(first, decision.options)]
        parts = [apply(g, options, k, self._gather(g, x, r, rank)) for k, r in enumerate(rows, first)]
        if first > 0:
            for r, part in zip(rows, parts, strict=True):
                x = g.add("ScatterND", x, r, part)
            return x
        # The shape changes, so there is nothing to write into: line the parts up and undo the sorting.
        count = g.add("Squeeze", g.add("Shape", decision.one, start=0, end=1), g.constant([0], np.int64))
        order = g.add("Range", g.constant(0, np.int64), count, g.constant(1, np.int64))
        place = g.add("ScatterND", order, g.add("Concat", *rows, axis=0), order)
        place = g.add("Unsqueeze", place, g.constant([1], np.int64))
        return self._gather(g, g.add("Concat", *parts, axis=0), place, rank)

    def fill(self, g: Graph, values: str, like: str, width: int) -> str:
        count = g.add("Shape", like, start=0, end=1)
        return g.add("Expand", values, g.add("Concat", count, g.constant([width], np.int64), axis=0))

    def part(self, g: Graph, stay: str, gone: Mapping[str, str], go_on: Callable[[Graph, Take], Values]) -> Values:
        rows = rows_of(g, stay)
        rest = go_on(g, lambda value: g.add("GatherND", value, rows))
        return {name: g.add("ScatterND", value, rows, rest[name]) for name, value in gone.items()}

    def _gather(self, g: Graph, x: str, rows: str, rank: int) -> str:
        """The samples at `rows`. Their unknown number is given a name: without it onnxruntime cannot tell that the
        two sides of the residual sum have one shape, and computes the sum outside the convolution."""
        part = g.add("GatherND", x, rows)
        g.describe(part, [f"samples_of_{part}", *[None] * (rank - 1)])
        return part


def apply(g: Graph, options: Options, k: int, x: str) -> str:
    """Option k applied to x, and no other work."""
    return options[k].one(g, x) if k in options else x
