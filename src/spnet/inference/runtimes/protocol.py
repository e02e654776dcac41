"""What a runtime is: it says whether it can serve a network, and compiles it into a program that runs images.

`Engine` asks the runtimes it finds in `spnet.inference.runtimes.registry` and knows none by name.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from spnet.errors import UserError
from spnet.network.dynamic import DynamicNetwork
from spnet.network.trace import Trace

Images = np.ndarray | Tensor


@dataclass(frozen=True)
class Rules:
    """What an engine asks for beside the test rule: see `Engine`."""

    exit_confidence: float | None = None
    max_cost: float | None = None
    int8: Any = None
    """What `Runtime.quantise` made of the network: run that."""


class Program(Protocol):
    """A network made ready to run. Called by several threads at once, pickled, copied and forked."""

    def __call__(self, images: Images, force: Tensor | None, shift: float | None) -> Trace:
        """Run checked images (B, C, H, W), uint8 or float.

        Args:
            images: an array, whose memory may be the user's own; a tensor where numpy has no such thing (another
                device, bfloat16).
            force: decisions (B, N) or (N,) instead of the network's own; routers run all the same.
            shift: the decision threshold; None takes `DynamicNetwork.decision_shift` as it is now.
        """
        ...

    def logits(self, images: Images, shift: float | None) -> np.ndarray:
        """(B, classes) floating point, on the host: what a call would put into its trace, and no trace."""
        ...


class Runtime(ABC):
    """Abstract. Stateless: what it compiles holds the state."""

    name: str

    def rank(self, batch_size: int) -> int:
        """How gladly `auto` takes it for batches of this size: the highest that can serve is taken, 0 never."""
        return 0

    def why_not(self, net: DynamicNetwork) -> str | None:
        """Why it cannot serve this network on this machine, in one line; None if it can."""
        return None

    def quantise(self, net: DynamicNetwork, images: Images) -> Any:
        """The network's weights and scales in 8 bits, calibrated on checked images; `UserError` where it has none."""
        raise UserError(f"executor '{self.name}' computes in fp32: int8 needs executor 'onnx'.")

    @abstractmethod
    def compile(self, net: DynamicNetwork, rules: Rules, threads: int | None) -> Program:
        """Make a network ready to run. `threads`: to compute with; None takes torch's setting."""

    def compile_static(self, net: DynamicNetwork, threads: int | None) -> Program | None:
        """The network without routers, every block in full, for where skipping does not pay; None if this runtime
        has no faster way to run it."""
        return None
