"""A small record of a network on this machine: from which cost on skipping no longer pays. `spnet bench` writes it,
`Engine` reads it, for the network that was measured alone: what a router costs says nothing of other blocks."""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spnet.data.cache import cache_root
from spnet.errors import UserError
from spnet.files import read_json, write_json

if TYPE_CHECKING:
    from spnet.network.dynamic import DynamicNetwork

FORMAT = 1


@dataclass(frozen=True)
class Profile:
    """Break-even costs, as shares of the static cost in multiply-adds: at or above, the static network is as fast.

    Attributes:
        single: for one image at a time.
        batch: for batches.
        measured_on: network, threads and versions; empty for the cautious values used where nothing was measured.
        network: which it holds for, as `network_key` says; empty: any.
    """

    single: float = 0.85
    batch: float = 0.85
    measured_on: str = ""
    network: str = ""


def network_key(net: "DynamicNetwork") -> str:
    """Backbone, images and routers of a network: those that share it take as long to decide and to run."""
    routers = 0 if net.router is None else sum(p.numel() for p in net.router.parameters())
    channels, height, width = net.input_shape
    return f"{net.backbone.name}, {channels}x{height}x{width}, routers of {routers} parameters"


def machine() -> str:
    """What a profile is valid for."""
    return f"{platform.node()} {platform.machine()} {os.cpu_count()} cores"


def profile_path() -> Path:
    """`profile.json` in the cache: `$SPNET_CACHE`, by default `~/.cache/spnet`."""
    return cache_root() / "profile.json"


def save_profile(profile: Profile) -> Path:
    path = profile_path()
    write_json(path, {"format": FORMAT, "machine": machine(), **asdict(profile)})
    return path


def load_profile() -> Profile:
    """This machine's profile; cautious values where there is none, or one of another machine or format.

    Raises:
        UserError: the file is there but damaged.
    """
    path = profile_path()
    if not path.is_file():
        return Profile()
    try:
        record = read_json(path)
    except UserError as error:
        raise UserError(f"{path} is damaged: delete it, or run spnet bench to write it anew.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("machine") != machine():
        return Profile()
    for name in ("single", "batch"):
        value = record.get(name)
        share = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
        if not share:  # what `break_even` gives
            raise UserError(f"{path} is damaged: '{name}' is no share. Delete it, or run spnet bench to write it anew.")
    words = (str(record.get(name, "")) for name in ("measured_on", "network"))
    return Profile(float(record["single"]), float(record["batch"]), *words)


def profile_of(net: "DynamicNetwork") -> Profile:
    """This machine's profile where it was measured on such a network; cautious values else."""
    found = load_profile()
    return found if found.network in ("", network_key(net)) else Profile()


def break_even(costs: list[float], speeds: list[float]) -> float:
    """The cost at which the line through (cost, time / static time) reaches 1; between 0 and 1.

    Args:
        costs: shares of the static cost that were measured; two different ones at least.
        speeds: speed-up over the static network at each.
    """
    times = [1 / speed for speed in speeds]
    mean_cost, mean_time = sum(costs) / len(costs), sum(times) / len(times)
    spread = sum((cost - mean_cost) ** 2 for cost in costs)
    slope = sum((c - mean_cost) * (t - mean_time) for c, t in zip(costs, times, strict=True)) / spread
    if slope <= 0:  # nothing but noise
        return 1.0 if mean_time < 1 else 0.0
    return min(1.0, max(0.0, mean_cost + (1 - mean_time) / slope))
