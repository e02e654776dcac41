"""Executors: how decisions become work. `masked` computes everything; the others really skip."""

from spnet.inference.runtimes.branching import branching
from spnet.inference.runtimes.gathered import gathered
from spnet.inference.runtimes.masked import masked

EAGER = {"masked": masked, "branching": branching, "gathered": gathered}
"""Executors that run inside `DynamicNetwork.forward`."""

__all__ = ["EAGER", "branching", "gathered", "masked"]
