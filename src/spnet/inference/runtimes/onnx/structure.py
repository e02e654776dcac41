"""What a module computes, as one line a torch operator: two modules with the same lines are the same up to weights.

A module is run once on examples while every operator it calls is written down. Weights count in the order of their
first use, so a graph made for one module serves its sisters: the j-th weight of one takes the place of the j-th of the
other. That needs no knowledge of module types, and sees through look-ups such as `self.gates[i]`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Value(str):
    """A tensor's name: x0, x1, ... are inputs, w0, w1, ... weights, v... computed; others constants of the code."""


@dataclass(frozen=True)
class Call:
    """An operator that was called, tensors replaced by their names. What works in place has its own argument as a
    result."""

    operator: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: Any


@dataclass(frozen=True, eq=False)
class Part:
    """A module at its place in a network.

    Attributes:
        inputs: examples, the batch first.
        outputs: what it makes of them.
        weights: parameters, buffers of the module, in the order of their first use.
        calls: what was called, in order.
        ends: names of the outputs.
        shapes: of tensors, by name.
        routes: for each output, k: the k-th computed value; or ~k: the k-th input, handed on as it is.
        structure: text that is equal for modules that differ in the values of weights only.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    ends: tuple[Value, ...]
    shapes: dict[str, tuple[int, ...]]
    routes: tuple[int, ...]
    structure: str

    @property
    def computes(self) -> bool:
        return any(route >= 0 for route in self.routes)

    def without_examples(self) -> "Part":
        """The same, to be kept: of inputs and outputs, which are as large as a network's features, the shapes alone."""
        inputs, outputs = (tuple(x.to("meta") for x in some) for some in (self.inputs, self.outputs))
        return replace(self, inputs=inputs, outputs=outputs)


class Weights:
    """The parameters and buffers of a module, found again when an operator reads them."""

    def __init__(self, module: nn.Module) -> None:
        owned = [*module.parameters(), *module.buffers()]
        self._owned = {id(t): t for t in owned} | {self._place(t): t for t in owned if t.numel()}

    def find(self, tensor: Tensor) -> Tensor | None:
        """The weight itself, also for `weight.data`."""
        return self._owned.get(id(tensor), self._owned.get(self._place(tensor)))

    def _place(self, tensor: Tensor) -> tuple[Any, ...]:
        return tensor.data_ptr(), tensor.shape, tensor.stride()


def record(module: nn.Module, *inputs: Tensor, weights: Weights | None = None) -> Part:
    """Run `module` on examples; it returns a tensor or a tuple of tensors. `weights`: those of a larger module, looked
    up once for all of its parts."""
    # Copies: what the module changes in place is its own, and one tensor given twice stays two inputs.
    inputs = tuple(x.clone() for x in inputs)
    recorder = _Recorder(weights or Weights(module), inputs)
    with recorder:
        found = module(*inputs)
    outputs = tuple(found) if isinstance(found, (tuple, list)) else (found,)
    handed = {id(x): ~k for k, x in enumerate(inputs) if x._version == 0}
    computed: dict[int, int] = {}
    routes = tuple(handed[id(y)] if id(y) in handed else computed.setdefault(id(y), len(computed)) for y in outputs)
    ends = tuple(recorder.name(y) for y in outputs)
    text = [*map(_kind, inputs), *map(_kind, recorder.weights), *map(repr, recorder.calls), repr(routes), repr(ends)]
    return Part(
        module,
        inputs,
        outputs,
        tuple(recorder.weights),
        tuple(recorder.calls),
        ends,
        recorder.shapes,
        routes,
        "\n".join(text),
    )


@contextmanager
def at_test(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients, then everything as it was."""
    training = {part: part.training for part in module.modules()}
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for part, mode in training.items():
            part.training = mode


class _Recorder(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch.compile is not at work here, and importing it takes seconds

    def __init__(self, owned: Weights, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.shapes: dict[str, tuple[int, ...]] = {f"x{k}": tuple(x.shape) for k, x in enumerate(inputs)}
        self.weights: list[Tensor] = []
        self._names = {id(x): Value(f"x{k}") for k, x in enumerate(inputs)}
        self._kept: list[Tensor] = list(inputs)  # alive, so that no other tensor gets their id
        self._owned = owned

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        given = self._named(args), self._named(kwargs or {})
        found = func(*args, **(kwargs or {}))
        self.calls.append(Call(str(func), *given, self._named(found, new=True)))
        return found

    def name(self, tensor: Tensor, new: bool = False) -> Value:
        if id(tensor) not in self._names:
            self._kept.append(tensor)
            weight = self._owned.find(tensor)
            if weight is not None:
                if not any(weight is seen for seen in self.weights):
                    self.weights.append(weight)
                name = f"w{next(j for j, seen in enumerate(self.weights) if seen is weight)}"
            elif new:
                name = f"v{len(self._kept)}"
            else:
                digest = hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
                name = f"constant {digest}:{_kind(tensor)}"
            self._names[id(tensor)] = Value(name)
            self.shapes[name] = tuple(tensor.shape)
        return self._names[id(tensor)]

    def _named(self, value: Any, new: bool = False) -> Any:
        if isinstance(value, Tensor):
            return self.name(value, new)
        if isinstance(value, (tuple, list)):
            return tuple(self._named(item, new) for item in value)
        if isinstance(value, dict):
            return {key: self._named(item, new) for key, item in value.items()}
        return value


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype}{tuple(tensor.shape)}"
