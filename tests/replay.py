"""A stand-in for CUDA graphs on the processor: it records the tensor operations of a step and repeats just those.

Like a graph it keeps numbers of the host as they were when it recorded, works on the same tensors each time, and refuses
what a capture refuses: looking at a value, and making a tensor from numbers of the host (a copy that waits).
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
        self.calls: list[tuple[Callable, tuple, dict[str, Any], list[Tensor | None]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in SYNCS, f"{func} waits for the device"
        result = func(*args, **(kwargs or {}))
        fresh = [returned.alias_info is None for returned in func._schema.returns]  # else a view, or changed in place
        outs = tree_leaves(result) if len(fresh) == 1 and fresh[0] else _each(result, fresh)
        self.calls.append((func, args, kwargs or {}, outs))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, outs in self.calls:
            again = func(*args, **kwargs)
            for kept, new in zip(outs, tree_leaves(again) if len(outs) != 1 else [again], strict=True):
                if isinstance(kept, Tensor):
                    kept.copy_(new[0] if isinstance(new, (list, tuple)) else new)


def _each(result: Any, fresh: list[bool]) -> list[Tensor | None]:
    results = result if isinstance(result, (list, tuple)) and len(fresh) > 1 else [result]
    return [value if is_fresh else None for value, is_fresh in zip(results, fresh, strict=True)]


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
