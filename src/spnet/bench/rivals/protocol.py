"""What a rival is: a way to run the whole static network, as strong as a careful engineer makes it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spnet.network.dynamic import DynamicNetwork

Call = Callable[[], Any]
Prepare = Callable[[np.ndarray, np.ndarray | None], Call]
"""(images (B, C, H, W) normalised float32, decisions (B, N) to force or None for own ones) -> what is timed."""
Bind = Callable[[np.ndarray], Call]
"""Images (B, C, H, W) normalised float32, in memory that stays -> what is timed: it returns logits (B, classes), in
memory that the next call may write to."""


@dataclass(frozen=True)
class Case:
    """What a rival is to run, and with what.

    Attributes:
        batch: images in every call.
        int8: the static network in QDQ form, an ONNX file; for rivals that ask for it.
    """

    net: DynamicNetwork
    threads: int
    batch: int
    int8: bytes | None = None


class Rival(ABC):
    """Abstract. Stateless: it is asked in one process and opened in another.

    Attributes:
        int8: runs the network in 8 bits, which counts as equal only where its accuracy is.
        on_request: why it is left out unless asked for; empty for those always measured.
    """

    name: str
    int8: bool = False
    on_request: str = ""

    def why_not(self) -> str | None:
        """Why it cannot run here, in a few words that name the remedy; None if it can."""
        return None

    def differs(self, threads: int, batch: int) -> bool:
        """Whether it is another thing than its fellows for this many threads and images."""
        return True

    @abstractmethod
    def open(self, case: Case) -> Bind:
        """Make it ready, in a process of its own whose torch has `case.threads` threads already."""
