"""The plain network."""

from spnet.methods.static.method import Static

__all__ = ["Static"]
