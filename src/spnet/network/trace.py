"""Trace: everything one forward pass decided.

Shapes: B samples, N blocks, L gated blocks (blocks with a router), K_i options of block i, S stages, C channels.
"""

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

UNREACHED = -1
"""The decision recorded for a block that a sample never reached, because it left at an earlier stage."""


@dataclass
class Trace:
    """What a `DynamicNetwork` computed and decided for a batch. Tensors only; nothing here holds a module.

    Example:
        >>> trace = spnet.load("runs/digits")(torch.zeros(2, 1, 8, 8))
        >>> tuple(trace.macs.shape), trace.exit_stage.tolist()  # multiply-adds of each image
        ((2,), [2, 2])
    """

    logits: Tensor
    """(B, classes) class logits of the stage at which each sample left (the last one, unless early exit is on)."""
    stage_logits: tuple[Tensor, ...]
    """One (B, classes) per stage that has a classifier; the last is `logits`."""
    block_features: tuple[Tensor, ...]
    """Pooled (B, C_i) features after each of the N blocks."""
    stage_features: tuple[Tensor, ...]
    """The entries of `block_features` after the last block of each stage."""
    aligned_features: tuple[Tensor, ...]
    """Of each stage that has a classifier: `stage_features`, mapped to the last width where there are learned
    aligners."""
    router_logits: tuple[Tensor, ...]
    """One (B, K_i) per gated block, raw: before noise, before any calibrated shift. Empty where no router ran."""
    gates: tuple[Tensor, ...]
    """One (B, K_i) per gated block: the drawn option, one-hot (or soft in soft samplers); carries the gradient."""
    log_prob: Tensor
    """(B, L) log-probability of the drawn options under the sampler's own distribution."""
    decisions: Tensor
    """(B, N) integers: the option of each block; ungated blocks show their last option, unreached ones -1."""
    macs: Tensor
    """(B,) multiply-adds this sample cost: stem, options run, routers run, heads run."""
    exit_stage: Tensor
    """(B,) stage at which the sample left; S - 1 without early exit."""

    @property
    def probabilities(self) -> tuple[Tensor, ...]:
        """One (B, K_i) per gated block: softmax of `router_logits`, what the router thinks of each option."""
        return tuple(logits.float().softmax(1) for logits in self.router_logits)


class LazyTrace(Trace):
    """A `Trace` whose fields are worked out when they are first asked for: at batch 1 a small network takes less time
    than the bookkeeping about it. Pickle and copies make plain traces of it.

    Args:
        source: has a method without arguments for each field that is to be had; the others are empty tuples.
    """

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:  # called only for what is not there yet
        if name not in Trace.__dataclass_fields__:
            raise AttributeError(f"a trace has no field '{name}'")
        found = getattr(self._source, name, tuple)
        value = self.__dict__[name] = found()
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return Trace, tuple(getattr(self, field.name) for field in fields(Trace))
