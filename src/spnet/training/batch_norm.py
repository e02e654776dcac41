"""Batch norm over the whole batch when several processes share it.

torch's `SyncBatchNorm` computes on CUDA alone and takes the place of modules; this takes the place of the function that
every batch norm calls, whoever wrote its module, and computes wherever the processes can add up. A batch norm sends
two numbers a channel, and their slopes on the way back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from spnet.numerics import widened
from spnet.training.gather import SumOverProcesses


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` of (B, C, ...), B the rows of this process, by the statistics of all processes.

    Every process must call it at the same place. Sums are added up in float64, so that a mean far from zero costs the
    variance nothing.
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    wide = widened(x)
    var_C, mean_C = torch.var_mean(wide, [0, *range(2, x.dim())], correction=0)
    mean_C, var_C = mean_C.double(), var_C.double()
    count = x.numel() / x.shape[1]
    sums = torch.cat([count * mean_C, count * (var_C + mean_C.square()), mean_C.new_full((1,), count)])
    total: Tensor = SumOverProcesses.apply(sums)  # type: ignore[assignment]
    count_1 = total[-1:].detach()
    mean_C, square_C = (total[:-1] / count_1).chunk(2)
    var_C = (square_C - mean_C.square()).clamp(min=0)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
        if running_var is not None:
            unbiased_C = var_C * count_1 / (count_1 - 1).clamp(min=1)
            running_var.lerp_(unbiased_C.to(running_var.dtype), momentum)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    scale_C = (var_C + eps).rsqrt().to(wide.dtype)
    scale_C = scale_C if weight is None else scale_C * weight
    y = (wide - mean_C.to(wide.dtype).view(shape)) * scale_C.view(shape)
    return (y if bias is None else y + bias.view(shape)).to(x.dtype)


class OverTheWholeBatch(TorchFunctionMode):
    """Until the block ends, batch norms in training mode take their statistics over all processes."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))
