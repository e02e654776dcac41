"""How the threads of one computation wait for each other: they spin for a moment, then sleep.

By default they spin for long. On a machine that does other work too, a spinning thread keeps the core from the very
thread it waits for, and a training step takes many times as long. Asleep at once they are slow to wake, which a quiet
machine pays at every layer. `benchmarks/neighbour.py` measures both.
"""

import os
import sys

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which a user may have chosen already."""
BRIEFLY = {"GOMP_SPINCOUNT": "30000", "KMP_BLOCKTIME": "1"}
"""About a millisecond, in the terms of GNU's OpenMP (turns of a loop; torch's wheels for Linux) and of LLVM's (ms)."""


def wait_briefly() -> None:
    """Choose a short spin for this process and those it starts, unless the user chose or torch is loaded already, which
    reads the choice when it is loaded."""
    if "torch" not in sys.modules and not any(name in os.environ for name in CHOICES):
        os.environ.update(BRIEFLY)
