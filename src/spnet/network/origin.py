"""How a network was made: what a run has to know to make it again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Origin:
    """Attributes:
    method, wrapper, settings: as `create_model` and `make_dynamic` take them.
    backbone: its name; empty for a network somebody brought.
    """

    method: str
    wrapper: str = ""
    backbone: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
