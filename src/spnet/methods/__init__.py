"""Methods: one method = one folder here. Folders are found, not listed: a new one needs no edit elsewhere.

A package of your own adds methods too: what it names in the entry-point group `spnet.methods` is imported as these are.
"""

from spnet.methods.base import Batch, Losses, Method, MethodConfig, Optimizer, Phase, Step
from spnet.methods.find import card_of, composition, list_methods, method_class, shipped_methods, wrapper_class
from spnet.methods.wrapper import Wrapper

__all__ = [
    "Batch",
    "Losses",
    "Method",
    "MethodConfig",
    "Optimizer",
    "Phase",
    "Step",
    "Wrapper",
    "card_of",
    "composition",
    "list_methods",
    "method_class",
    "shipped_methods",
    "wrapper_class",
]
