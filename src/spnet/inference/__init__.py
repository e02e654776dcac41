"""Inference: which option each block runs, on what, at which budget, and what that gives."""
