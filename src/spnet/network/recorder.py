"""What the loop over blocks writes down, block by block, also when samples leave it early.

Shapes: B samples of the batch; with early exit fewer rows remain from stage to stage.
"""

from typing import Any

import torch
from torch import Tensor

from spnet.network.sampling import Draw


class Rows:
    """Which samples are still in the network, and the logits of those that left."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.batch = batch
        self.index = torch.arange(batch, device=device)
        self.exit_stage = torch.zeros(batch, dtype=torch.int64, device=device)
        self.logits: Tensor | None = None

    def leave(self, stay: Tensor, stage: int, logits: Tensor) -> None:
        self._store(self.index[~stay], stage, logits[~stay])
        self.index = self.index[stay]

    def finish(self, logits: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        self._store(self.index, stage, logits)
        assert self.logits is not None
        return self.logits, self.exit_stage

    def _store(self, index: Tensor, stage: int, logits: Tensor) -> None:
        if self.logits is None:
            self.logits = logits.new_zeros(self.batch, logits.shape[1])
        self.logits = self.logits.index_copy(0, index, logits)
        self.exit_stage[index] = stage


class Book:
    """Collects what happens block by block; with early exit, spreads the remaining rows over the whole batch at the
    end."""

    def __init__(self, rows: Rows | None) -> None:
        self.rows = rows
        self.entries: dict[str, list[tuple[Tensor, Tensor | None]]] = {}

    def add(self, name: str, value: Tensor) -> None:
        self.entries.setdefault(name, []).append((value, self.rows.index if self.rows else None))

    def add_draw(self, draw: Draw) -> None:
        self.add("gates", draw.gate_BK)
        self.add("log_prob", draw.log_prob_B)
        self.add("decisions", draw.gate_BK.detach().argmax(1))

    def get(self, name: str, fill: int = 0) -> tuple[Tensor, ...]:
        values = self.entries.get(name, [])
        if self.rows is None:
            return tuple(value for value, _ in values)
        spread = []
        for value, index in values:
            whole = value.new_full((self.rows.batch, *value.shape[1:]), fill)
            spread.append(whole.index_copy(0, index, value))  # type: ignore[arg-type]
        return tuple(spread)


def select(state: Any, keep: Tensor) -> Any:
    """The rows of a router's state that stay."""
    if isinstance(state, Tensor):
        return state[keep]
    if isinstance(state, dict):
        return {key: select(value, keep) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(select(value, keep) for value in state)
    return state
