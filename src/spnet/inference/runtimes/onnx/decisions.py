"""Decisions as ONNX values: what a block's option is, and which samples take it.

Shapes: n samples in hand, k of them taking an option; K options of the block.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import TensorProto

from spnet.inference.runtimes.onnx.graph import Graph


@dataclass
class Decision:
    """One block's decision.

    Attributes:
        one: (n, 1) int64, the option; for two options a bool: run?
        scores: (n, K), what `one` is the largest of; kept only where a bound on cost may forbid options.
        shown: what stands for it among the graph's decisions: `one`, or, where blocks are decided together, (n, blocks)
            for the first of them and "" for the others.
        raw: the same of raw router logits; "" where nobody asks for them.
    """

    options: int
    one: str
    binary: bool
    scores: str = ""
    shown: str = ""
    raw: str = ""
    masks: dict[int, str] = field(default_factory=dict)

    def takes(self, g: Graph, option: int) -> str:
        """(n, 1) bool: does the sample take this option?"""
        if option not in self.masks:
            if self.binary:
                self.masks[option] = self.one if option == 1 else g.add("Not", self.one)
            else:
                self.masks[option] = g.add("Equal", self.one, g.constant(option, np.int64))
        return self.masks[option]

    def one_hot(self, g: Graph) -> str:
        """(n, K) float."""
        one = g.add("Cast", self.one, to=TensorProto.INT64) if self.binary else self.one
        same = g.add("Equal", one, g.constant([range(self.options)], np.int64))
        return g.add("Cast", same, to=TensorProto.FLOAT)

    def of(self, take: Callable[[str], str]) -> "Decision":
        """The decision of the samples that stay in hand."""
        kept = {name: take(value) for name in ("one", "scores", "shown", "raw") if (value := getattr(self, name))}
        return replace(self, **kept, masks={})


def rows_of(g: Graph, mask: str) -> str:
    """(k, 1) indices of the samples at which a mask (n, 1) holds."""
    return g.add("Transpose", g.add("NonZero", g.add("Squeeze", mask, g.constant([1], np.int64))), perm=[1, 0])
