"""Executors: how decisions become work. `masked` computes everything; the others really skip."""

from spnet.executors.branching import branching
from spnet.executors.gathered import gathered
from spnet.executors.masked import masked

EAGER = {"masked": masked, "branching": branching, "gathered": gathered}
"""Executors that run inside `DynamicNetwork.forward`."""

__all__ = ["EAGER", "branching", "gathered", "masked"]
