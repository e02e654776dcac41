"""RDI-Net."""

from spnet.methods.rdi_net.method import SIMILARITIES, PathQueue, RDINet, RDINetConfig
from spnet.methods.rdi_net.relational import Relational, aggregate

__all__ = ["SIMILARITIES", "PathQueue", "RDINet", "RDINetConfig", "Relational", "aggregate"]
