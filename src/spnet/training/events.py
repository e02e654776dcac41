"""TensorBoard events beside the JSON lines: every number of an epoch's row as a scalar.

TensorBoard's own `RecordWriter` frames each record, but this file writes it: `EventFileWriter`, and torch's
`SummaryWriter` on top of it, always write in a thread, where a full disk ends in a traceback, and start another file
at each resume. Where TensorBoard is not installed there are no events; the JSON lines say the same.
"""

import importlib.util
import io
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spnet.files import cannot_write, write_bytes

FILE = Path("events") / "events.out.tfevents.spnet"
"""Inside the run folder; TensorBoard looks for `tfevents` in a name."""


def start_events(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Begin the file with the epochs that are done: what a killed process wrote beyond them is gone."""
    if not _installed():
        warnings.warn("tensorboard is not installed: no events are written beside metrics.jsonl.", stacklevel=2)
        return
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]

    header = Event(wall_time=rows[0]["time"] if rows else time.time(), file_version="brain.Event:2")
    write_bytes(folder / FILE, b"".join([_framed(header), *map(_encoded, rows)]))


def append_event(folder: Path, row: Mapping[str, Any]) -> None:
    if not _installed():
        return
    try:
        with open(folder / FILE, "ab") as file:
            file.write(_encoded(row))
    except OSError as error:
        raise cannot_write(folder / FILE, error) from error


def scalars(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(`losses/path`, 0.1) ... for every number of a row, nested ones and lists (`execution_rate_per_block/3`)
    included."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, list):
            yield from scalars(dict(enumerate(value)), f"{prefix}{name}/")  # type: ignore[arg-type]
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and name not in ("epoch", "time"):
            yield f"{prefix}{name}", float(value)


def _installed() -> bool:
    return importlib.util.find_spec("tensorboard") is not None


def _encoded(row: Mapping[str, Any]) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(row)]
    return _framed(Event(wall_time=row["time"], step=row["epoch"], summary=Summary(value=values)))


def _framed(event: Any) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()
