"""How the threads of one computation wait for each other: asleep.

By default they spin. On a machine that does other work too, a spinning thread keeps the core from the very thread it
waits for, and a training step takes several times as long. Asleep they cost a quiet machine next to nothing.
"""

import os
import sys

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which a user may have chosen already."""


def wait_asleep() -> None:
    """Choose waiting asleep for this process and those it starts, unless the user chose or torch is loaded already,
    which reads the choice when it is loaded."""
    if "torch" not in sys.modules and not any(name in os.environ for name in CHOICES):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
