"""CoDiNet."""

from spnet.methods.codinet.linear import TwoLinears
from spnet.methods.codinet.method import CoDiNet, CoDiNetConfig

__all__ = ["CoDiNet", "CoDiNetConfig", "TwoLinears"]
