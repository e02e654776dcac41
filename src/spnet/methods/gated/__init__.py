"""The dynamic baseline."""

from spnet.methods.gated.method import Gated, GatedConfig
from spnet.methods.rates import RateConfig, add_rate_terms, with_options

__all__ = ["Gated", "GatedConfig", "RateConfig", "add_rate_terms", "with_options"]
