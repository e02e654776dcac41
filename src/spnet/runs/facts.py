"""What is recorded of a run beside its settings: its images, where they lay, and what it was computed with."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from spnet.errors import UserError
from spnet.runs.forms import ALWAYS
from spnet.runs.record import Start

if TYPE_CHECKING:
    from spnet.data import Dataset
    from spnet.training.distributed import Place


@dataclass(frozen=True)
class Facts:
    """What config.json says beside the settings. Without the first four no network can be loaded.

    Attributes:
        classes: their names, in the order of the logits.
        input_shape: (C, H, W).
        mean, std: per channel, in units of [0, 1].
        data_at: where the images lay on this machine, as `NAME:PATH`; empty where the data have no place.
        started_from: the run whose weights were the start.
        commits: of the sources that trained it, in order.
        spnet: version that wrote the file.
    """

    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_at: str = ""
    started_from: Start | None = field(default=None, metadata=ALWAYS)
    commits: tuple[str, ...] = ()
    spnet: str = field(default="", compare=False)

    def fault(self) -> str | None:
        """The first entry that goes with no network; None if all do."""
        channels = self.input_shape[0]
        right = {
            "classes": len(self.classes) > 0,
            "mean": len(self.mean) == channels and _finite(self.mean),
            "std": len(self.std) == channels and _finite(self.std) and min(self.std, default=0) > 0,
        }
        return next((name for name, fits in right.items() if not fits), None)


def _finite(values: Sequence[float]) -> bool:
    return all(abs(value) < 2**63 for value in values)


def facts_of(dataset: "Dataset", spec: str) -> Facts:
    """What loading the network needs besides the run; `spec`: where the images lie, `NAME` or `NAME:PATH`."""
    height, width = dataset.image_size
    return Facts(
        classes=tuple(dataset.classes),
        input_shape=(dataset.in_channels, height, width),
        mean=tuple(dataset.mean),
        std=tuple(dataset.std),
        data_at=absolute(spec) if ":" in spec else "",
    )


def absolute(spec: str) -> str:
    """`folder:pics?size=32` with the whole path, so that it means the same from every working folder."""
    name, _, rest = spec.partition(":")
    return f"{name}:{Path(rest).expanduser().absolute()}" if rest else spec


def home_of_data(spec: str, facts: Facts) -> str:
    """Where a run's images lie: at `data_at` of its config.json if they still do, else where its `data` says."""
    name, _, rest = facts.data_at.partition(":")
    path = rest.partition("?size=")[0]
    same = name == spec.partition(":")[0]  # a file may say anything
    return facts.data_at if same and path and os.path.exists(path) else spec


def refuse_other_data(dataset: "Dataset", facts: Facts, run: Path) -> None:
    """Raise `UserError` unless the images are those that the run's facts speak of, by all they say of them."""
    now = facts_of(dataset, "")
    for words, was, is_now in (
        ("classes", facts.classes, now.classes),
        ("image shape", facts.input_shape, now.input_shape),
    ):
        if was != is_now:
            raise UserError(f"{run} was trained on other data: its {words} {_brief(was)}, here {_brief(is_now)}.")
    for name, was, is_now in (("mean", facts.mean, now.mean), ("std", facts.std, now.std)):
        if len(was) != len(is_now) or any(abs(a - b) > 1e-5 for a, b in zip(was, is_now, strict=True)):
            raise UserError(
                f"{run} was trained on other images: their {name} was {_brief(was)}, here it is {_brief(is_now)}."
            )


def _brief(values: Sequence[object]) -> str:
    words = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    return ", ".join(words[:6]) + (f" ... ({len(words)})" if len(words) > 6 else "")


@dataclass(frozen=True)
class ComputedWith:
    """What the bits of a training depend on beside its config: sums are added up in another order elsewhere."""

    threads: int = 0
    devices: int = 0
    device: str = ""

    @classmethod
    def here(cls, place: "Place") -> "ComputedWith":
        import torch

        return cls(torch.get_num_threads(), place.world_size, place.device.type)

    def differs(self, now: "ComputedWith") -> str:
        """In words what a training was computed with before and is no longer; empty where nothing changed or is
        known."""
        pairs = [(field.name, getattr(self, field.name), getattr(now, field.name)) for field in fields(self)]
        changes = [f"{before} {name}, now {value}" for name, before, value in pairs if before and before != value]
        return f"begun with {' and '.join(changes)}: the run goes on, but not in the same bits." if changes else ""
