"""Where the operators that `operators` knows are written down."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from spnet.inference.runtimes.onnx.structure import Part, Value


class NotHere(Exception):
    """An operator, or a way to call it, that is left to torch.onnx."""


class Writer:
    """Operators called, in order -> nodes. Values may be changed in place: `_now` holds the latest of each."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.batch = len(part.inputs[0])
        self.nodes: list[NodeProto] = []
        self.constants: list[Any] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.transposed: dict[str, str] = {}
        self._now: dict[str, str] = {}
        self._viewed: set[str] = set()

    def read(self, value: Any) -> str:
        if not isinstance(value, Value) or (value not in self._now and value[0] not in "xw"):
            raise NotHere  # a constant of the code, a transposed weight, memory nobody wrote to
        return self._now.get(value, str(value))

    def axis(self, value: Value, dim: int) -> int:
        """A dimension, counted from the front; never the batch."""
        rank = len(self.part.shapes[value])
        if dim % rank == 0 or self.part.shapes[value][0] != self.batch:
            raise NotHere
        return dim % rank

    def integers(self, values: Sequence[int]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def number(self, value: float) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def node(self, op: str, inputs: Sequence[str], results: Any, **attributes: Any) -> None:
        results = results if isinstance(results, tuple) and not isinstance(results, Value) else (results,)
        names = []
        for result in results:
            in_place = result in self._now or result[0] in "xw"
            if in_place and result in self._viewed:
                raise NotHere  # the views would have to change too
            names.append(f"{result}_{len(self.nodes)}")
            self._now[result] = names[-1]
            self.shapes[names[-1]] = self.part.shapes[result]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))

    def view(self, source: Value, results: Any) -> None:
        self._viewed.update([source, *(results if isinstance(results, tuple) else [results])])
