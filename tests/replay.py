"""A stand-in for CUDA graphs on the processor: it records the tensor operations of a step and repeats just those.

Like a graph it keeps numbers of the host as they were when it recorded, works on the same tensors each time, and
refuses what a capture refuses: looking at a value, and making a tensor from numbers of the host (a copy that waits).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
SYNCS = {
    aten._local_scalar_dense.default,
    aten.lift_fresh.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.equal.default,
}


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in SYNCS, f"{func} waits for the device"
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for kept, new in zip(fresh(func, result), fresh(func, again), strict=True):
                kept.copy_(new)


def fresh(func: Any, result: Any) -> list[Tensor]:
    """The tensors that an operation made, without views and those it changed in place."""
    returns = func._schema.returns
    values = [result] if len(returns) == 1 else list(result or ())
    made = [value for kind, value in zip(returns, values, strict=True) if kind.alias_info is None]
    return [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]


def recorded(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    """A `spnet.training.capture.Record`. Recording here does the work too, so the first replay does nothing."""
    recorder = Recorder()
    with recorder:
        work()
    first = [True]

    def replay() -> None:
        if first[0]:
            first[0] = False
        else:
            recorder.replay()

    return replay
