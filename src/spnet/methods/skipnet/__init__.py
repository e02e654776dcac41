"""SkipNet."""

from spnet.methods.skipnet.feed_forward import FeedForward
from spnet.methods.skipnet.method import SkipNet, SkipNetConfig, SoftProbability
from spnet.methods.skipnet.recurrent import Recurrent

__all__ = ["FeedForward", "Recurrent", "SkipNet", "SkipNetConfig", "SoftProbability"]
