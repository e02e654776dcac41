"""Processes on cores of their own, and a Ray cluster of nodes of one CPU each on this machine (Linux)."""

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_cores(cores: Iterable[int]) -> Iterator[None]:
    """Processes that are started meanwhile, and whatever these start, compute on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def nodes(cores: Sequence[Iterable[int]]) -> Iterator[Any]:
    """Ray's `Cluster` until the block ends: a node for each entry, on its cores; the first one is the head."""
    cluster = importlib.import_module("ray.cluster_utils").Cluster()
    try:
        for number, own in enumerate(cores):
            with on_cores(own):
                cluster.add_node(num_cpus=1, **({} if number else {"include_dashboard": False}))
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
