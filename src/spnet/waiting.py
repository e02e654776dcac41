"""How the threads of one computation wait for each other: beside other work asleep, else they spin for a moment first.

By default they spin for long. On a machine that does other work too, a spinning thread keeps the core from the very
thread it waits for, and a training step takes many times as long. Asleep at once they are slow to wake, which a quiet
machine pays at every layer. `benchmarks/neighbour.py` measures both.
"""

import os
import sys
import time
from pathlib import Path

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which a user may have chosen already."""
BRIEFLY = {"GOMP_SPINCOUNT": "100000", "KMP_BLOCKTIME": "1"}
"""One to five milliseconds: turns of a loop for GNU's OpenMP (torch's wheels for Linux), milliseconds for LLVM's."""
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
LOAD = Path("/proc/loadavg")
LOOKS = 3
"""A process that runs for a moment only is no neighbour: it must be there at each of these looks, 5 ms apart."""


def choose_waiting() -> None:
    """Choose for this process and those it starts, by what else the machine does now; unless the user chose or torch is
    loaded already, which reads the choice when it is loaded."""
    if "torch" not in sys.modules and not any(name in os.environ for name in CHOICES):
        os.environ.update(ASLEEP if busy() else BRIEFLY)


def busy() -> bool:
    """Whether other processes keep half of the cores or more; False where the system does not say."""
    try:
        return 2 * min(_others() for _ in range(LOOKS)) >= (os.cpu_count() or 1)
    except (OSError, ValueError, IndexError):
        return False


def _others() -> int:
    """Threads that run or wait for a core, without this one: the fourth word, as in `3/412`."""
    time.sleep(0.005)
    return int(LOAD.read_text().split()[3].split("/")[0]) - 1
