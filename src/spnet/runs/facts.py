"""What is recorded of a run beside its settings: its images, where they lay, and what it was computed with."""

import os
from pathlib import Path
from typing import Any

import torch

from spnet.data import Dataset
from spnet.errors import UserError
from spnet.training.devices import Place


def facts_of(dataset: Dataset, spec: str) -> dict[str, Any]:
    """What loading the network needs besides the run; and `data_at`, where the images lie on this machine."""
    facts = {
        "classes": list(dataset.classes),
        "input_shape": [dataset.in_channels, *dataset.image_size],
        "mean": list(dataset.mean),
        "std": list(dataset.std),
    }
    return {**facts, "data_at": absolute(spec)} if ":" in spec else facts


def absolute(spec: str) -> str:
    """`folder:pics?size=32` with the whole path, so that it means the same from every working folder."""
    name, _, rest = spec.partition(":")
    return f"{name}:{Path(rest).expanduser().absolute()}" if rest else spec


def home_of_data(spec: str, record: dict[str, Any]) -> str:
    """Where a run's images lie: at `data_at` of its config.json if they still do, else where its `data` says."""
    noted = record.get("data_at")
    if not isinstance(noted, str):
        return spec
    name, _, rest = noted.partition(":")
    path = rest.partition("?size=")[0]
    same = name == spec.partition(":")[0]  # a file may say anything
    return noted if same and path and os.path.exists(path) else spec


def refuse_other_data(dataset: Dataset, record: dict[str, Any], run: Path) -> None:
    """Raise `UserError` unless the images are those that the run's config.json speaks of, by all it says of them."""
    now = facts_of(dataset, "")
    for name, words in (("classes", "classes"), ("input_shape", "image shape")):
        if list(record[name]) != now[name]:
            raise UserError(
                f"{run} was trained on other data: its {words} {_brief(record[name])}, here {_brief(now[name])}."
            )
    for name in ("mean", "std"):
        if len(record[name]) != len(now[name]) or any(
            abs(a - b) > 1e-5 for a, b in zip(record[name], now[name], strict=True)
        ):
            raise UserError(
                f"{run} was trained on other images: their {name} was {_brief(record[name])}, here it is "
                f"{_brief(now[name])}."
            )


def _brief(values: list[Any]) -> str:
    words = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    return ", ".join(words[:6]) + (f" ... ({len(words)})" if len(words) > 6 else "")


def computed_with(place: Place) -> dict[str, Any]:
    """What the bits of a training depend on beside its config: sums are added up in another order elsewhere."""
    return {"threads": torch.get_num_threads(), "devices": place.world_size, "device": place.device.type}


def differently(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """In words what a training was computed with before and is no longer; empty where nothing changed or is known."""
    if not before or before == now:
        return ""
    changes = [f"{before[name]} {name}, now {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
    return f"begun with {' and '.join(changes)}: the run goes on, but not in the same bits." if changes else ""
