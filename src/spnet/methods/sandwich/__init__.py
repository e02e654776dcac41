"""Sandwich training."""

from spnet.methods.sandwich.method import Sandwich, SandwichConfig

__all__ = ["Sandwich", "SandwichConfig"]
