"""What several processes know apart, put together for all of them, with slopes."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, distributed

from spnet.network.trace import Trace
from spnet.shard import Shard


def gathered(x: Tensor, shard: Shard) -> Tensor:
    """The rows of all processes, in the order of the batch; no slope."""
    counts = shard.rows(len(x))
    mine = x.new_zeros(max(counts), *x.shape[1:])  # what is sent is of one size
    mine[: len(x)] = x
    if not mine.numel():
        return x.new_zeros(sum(counts), *x.shape[1:])
    parts = [torch.empty_like(mine) for _ in counts]
    distributed.all_gather(parts, mine)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _Gather(torch.autograd.Function):
    """Every process works out the same loss of the same rows, so each has the slopes of all rows at hand and needs only
    its own. Times the number of processes, because they are averaged over afterwards."""

    @staticmethod
    def forward(ctx, x: Tensor, shard: Shard) -> Tensor:  # type: ignore[override]
        ctx.shard = shard
        return gathered(x, shard)

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.shard.of(slope) * ctx.shard.processes, None


class SumOverProcesses(torch.autograd.Function):
    """The sum over processes, where each goes on with it to a loss of its own rows: slopes are summed too."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:  # type: ignore[override]
        return SumOverProcesses.apply(slope)  # type: ignore[return-value]


def whole_trace(trace: Trace, shard: Shard) -> Trace:
    """The trace of the whole batch, from that of this process's rows; losses of it have the slopes of the whole batch.

    One message for each type of numbers: everything about an image lies side by side in it.
    """
    own = {field.name: getattr(trace, field.name) for field in fields(Trace)}
    found = {id(x): x for value in own.values() for x in (value if isinstance(value, tuple) else (value,))}
    groups: dict[tuple[torch.dtype, bool], list[Tensor]] = {}
    for x in found.values():
        groups.setdefault((x.dtype, x.requires_grad), []).append(x)
    whole: dict[int, Tensor] = {}
    for (_, with_slope), tensors in groups.items():
        columns = [x.unsqueeze(1) if x.dim() == 1 else x.flatten(1) for x in tensors]
        joined = torch.cat(columns, 1)
        together: Tensor = _Gather.apply(joined, shard) if with_slope else gathered(joined, shard)  # type: ignore[assignment]
        for x, column in zip(tensors, together.split([c.shape[1] for c in columns], 1), strict=True):
            whole[id(x)] = column.reshape(len(column), *x.shape[1:])
    named: dict[str, Any] = {
        name: tuple(whole[id(x)] for x in value) if isinstance(value, tuple) else whole[id(value)]
        for name, value in own.items()
    }
    return Trace(**named)


def mean_over_processes(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Of each tensor; all in one message."""
    flat = torch.cat([x.reshape(-1) for x in tensors])
    distributed.all_reduce(flat)
    return _apart(flat / distributed.get_world_size(), tensors)


@torch.no_grad()
def take_from_first(tensors: Sequence[Tensor]) -> None:
    """Fill the tensors, in place, with those of the first process; a message for each type of numbers."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for x in tensors:
        groups.setdefault(x.dtype, []).append(x)
    for group in groups.values():
        flat = torch.cat([x.reshape(-1) for x in group])
        distributed.broadcast(flat, src=0)
        for x, value in zip(group, _apart(flat, group), strict=True):
            x.copy_(value)


def _apart(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    return [part.view(x.shape) for part, x in zip(flat.split([x.numel() for x in like]), like, strict=True)]
