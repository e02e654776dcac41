"""ConvNet-AIG."""

from spnet.methods.convnet_aig.method import ConvNetAIG, ConvNetAIGConfig

__all__ = ["ConvNetAIG", "ConvNetAIGConfig"]
