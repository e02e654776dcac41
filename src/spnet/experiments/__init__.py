"""Experiments: each is a list of runs and how to print them. Runs are shared between experiments by their hash."""
