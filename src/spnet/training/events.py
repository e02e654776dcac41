"""TensorBoard events beside the JSON lines: every number of an epoch's row as a scalar."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self


class Events:
    """Args:
    folder: the run folder; events go to `events/` in it.
    first_epoch: epochs from here on replace what an earlier, killed process wrote.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # slow to import: late

        self._writer = SummaryWriter(str(folder / "events"), purge_step=first_epoch + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        for name, value in scalars(row):
            self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()


def scalars(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(`losses/path`, 0.1) ... for every number of a row, nested ones and lists (`execution_rate_per_block/3`)
    included."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, list):
            yield from scalars(dict(enumerate(value)), f"{prefix}{name}/")  # type: ignore[arg-type]
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and name != "epoch":
            yield f"{prefix}{name}", float(value)
