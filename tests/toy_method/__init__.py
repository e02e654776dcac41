"""Glance: a toy method of this folder alone, with a kind of router that the package does not have."""
