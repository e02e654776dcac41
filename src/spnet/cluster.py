"""A Ray cluster: reached, and asked whether its nodes can do our work. Everything else about clusters is Ray's.

`--on ray` is the cluster that the environment variable RAY_ADDRESS names or that runs on this machine, and one of this
machine alone where there is none; `--on ray:HOST:PORT` is the one at that address, `ray://HOST:PORT` the same through
Ray's client.
"""

import importlib
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spnet.errors import UserError
from spnet.version import __version__

PATIENCE = 60.0
"""Seconds in which every node has to say what it has."""
KNOCK = 5.0
"""Seconds in which a server has to answer at an address."""
SETTINGS = b"\x04"
"""The type of the frame with which each side of HTTP/2 begins (RFC 9113)."""
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + SETTINGS + bytes(5)
"""What a client says first: the preface, and settings without a change."""


def address_of(on: str) -> str | None:
    """What `--on` names: None for `ray` alone, which is for Ray to find."""
    if on == "ray":
        return os.environ.get("RAY_ADDRESS") or None
    if on.startswith("ray://"):
        return on
    kind, _, address = on.partition(":")
    host, colon, port = address.rpartition(":")
    if kind != "ray" or not (host and colon and port.isdecimal()):
        raise UserError(f"--on wants ray, ray:HOST:PORT or ray://HOST:PORT, such as ray:10.0.0.1:6379; not '{on}'.")
    return address


def library(name: str = "ray") -> Any:
    """Ray, or a module of it; `UserError` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"--on ray needs Ray ({error}): pip install 'spnet[cluster]'.") from error


@contextmanager
def connected(on: str, places: Iterable[Path] = ()) -> Iterator[Any]:
    """Ray, connected until the block ends; who was connected before stays so.

    Args:
        on: as `--on` takes it.
        places: files and folders that every node must have.

    Raises:
        UserError: no Ray here, no cluster there, or a node without spnet, with another version of it, or without one
            of the places.
    """
    address = address_of(on)
    ray = library()
    own = not ray.is_initialized()
    if own:
        _connect(ray, address)
    try:
        check_nodes(ray, [path.absolute() for path in places])
        yield ray
    finally:
        if own:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    if address is not None and address not in ("auto", "local"):
        _knock(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster could be joined at {address or 'this machine'}: {in_a_line(error)}") from error


def _knock(address: str) -> None:
    """`UserError` unless a server of Ray's kind (gRPC, which is HTTP/2) answers there: Ray would ask for ever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK) as line:
            if os.environ.get("RAY_USE_TLS") == "1":  # it greets in another way
                return
            line.sendall(GREETING)
            if line.recv(4)[3:] != SETTINGS:
                raise OSError("something else listens there")
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error}): start one with 'ray start --head', or mend the address."
        ) from error


def in_a_line(error: Exception) -> str:
    """What an error of Ray's says; of one that a task raised, what the task said, without the page around it."""
    cause = getattr(error, "cause", None)
    said = f"{type(cause).__name__}: {cause}" if isinstance(cause, Exception) else str(error)
    return " ".join(said.split())[:300]


def check_nodes(ray: Any, places: Iterable[Path] = (), version: str = __version__) -> None:
    """Ask every node for its spnet and for the places; `UserError` names the first that lacks something."""
    affinity = library("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy

    def found(paths: list[str]) -> tuple[str | None, list[str]]:
        """A function within a function is sent by value: the node may have no spnet to look it up in."""
        import os

        try:
            from spnet.version import __version__ as installed
        except ImportError:
            return None, []
        return installed, [path for path in paths if not os.path.exists(path)]

    wanted = [str(path) for path in places]
    task = ray.remote(num_cpus=0, max_retries=1)(found)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = affinity(node_id=node["NodeID"], soft=False)
            asked[task.options(scheduling_strategy=there).remote(wanted)] = node["NodeManagerAddress"]
    try:
        answers = ray.get(list(asked), timeout=PATIENCE)
    except ray.exceptions.GetTimeoutError as error:
        raise UserError(f"a node of the Ray cluster has not answered in {PATIENCE:.0f} s: see 'ray status'.") from error
    except ray.exceptions.RayError as error:
        raise UserError(f"a node of the Ray cluster cannot work: {in_a_line(error)}") from error
    for name, (installed, lacking) in zip(asked.values(), answers, strict=True):
        if installed is None:
            raise UserError(f"node {name} has no spnet: install version {version} there.")
        if installed != version:
            raise UserError(f"node {name} has spnet {installed}, here it is {version}: install one version everywhere.")
        if lacking:
            raise UserError(f"node {name} has no '{lacking[0]}': share that place, or copy it there.")


def slots(ray: Any, cpus: float, gpus: float = 0.0) -> int:
    """How many tasks of this size the cluster holds now; `UserError` where no node holds one."""
    held = 0
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        sizes = [has.get(name, 0.0) / need for name, need in (("CPU", cpus), ("GPU", gpus)) if need > 0]
        held += int(min(sizes, default=has.get("CPU", 0.0)) + 1e-9)
    if not held:
        raise UserError(f"no node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs: ask for less.")
    return held
