"""Decisions as ONNX values: what a block's option is, and which samples take it.

Shapes: B samples, n of them taking an option.
"""

from dataclasses import dataclass, field

import numpy as np

from spnet.executors.onnx.graph import Graph


@dataclass
class Decision:
    """One block's decision. `one` (B, 1) int64 is the option, or for two options a bool: run?"""

    options: int
    one: str
    binary: bool
    masks: dict[int, str] = field(default_factory=dict)

    def takes(self, g: Graph, option: int) -> str:
        """(B, 1) bool: does the sample take this option?"""
        if option not in self.masks:
            if self.binary:
                self.masks[option] = self.one if option == 1 else g.add("Not", self.one)
            else:
                self.masks[option] = g.add("Equal", self.one, g.constant(option, np.int64))
        return self.masks[option]

    def rows_of(self, g: Graph, option: int) -> str:
        """(n, 1) indices of the samples that take this option."""
        mask = g.add("Squeeze", self.takes(g, option), g.constant([1], np.int64))
        return g.add("Transpose", g.add("NonZero", mask), perm=[1, 0])
