"""Photos to rows: decoded by threads a few batches ahead, classified batch by batch.

A batch never spans two parts, so that the rows of a part depend on nothing but its photos, the network and the batch
size: whoever computes a part, in whatever order, gets the same bits on the same kind of machine.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from spnet.data.parquet_rows import ForwardRows
from spnet.data.photos.ahead import read_ahead
from spnet.data.pictures import picture_for
from spnet.errors import UserError, check_finite
from spnet.inference.batch.listing import Part, Photo
from spnet.inference.engine import Engine

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("class", pa.string()),
        ("probability", pa.float64()),
        ("decisions", pa.list_(pa.int8())),
        ("macs", pa.int64()),
        ("exit_stage", pa.int8()),
        ("error", pa.string()),
    ]
)
"""One row a photo: where it lies; class and its probability; the option of each block (-1: not reached); multiply-adds;
the stage at which it left, or the member of a cascade that answered; why it could not be read, and then no more."""


def classify(
    engine: Engine,
    parts: Sequence[Part],
    *,
    batch_size: int,
    workers: int,
    rows: ForwardRows | None = None,
    base: str = "",
    moved: Callable[[int], None] = lambda photos: None,
) -> Iterator[tuple[Part, pa.Table]]:
    """The rows of each part, in order.

    Args:
        batch_size: photos that are computed at a time. workers: threads that decode.
        rows: reads Parquet files; for who comes again with later parts of the same file.
        base: the folder that relative names are relative to; left out, the working folder.
        moved: called after every batch with the number of its photos.

    Raises:
        UserError: a Parquet file that cannot be read any more, or a network that answers no numbers. Never for a photo.
    """
    rows = rows or ForwardRows()
    channels, height, width = engine.model.input_shape
    read = partial(_decoded, in_channels=channels, image_size=(height, width))
    batches = (batch for part in parts for batch in _batches(part.photos(rows, base), batch_size))
    classes = [_text(str(name)) for name in engine.model.classes or range(engine.model.num_classes)]
    decoded = read_ahead(batches, read, workers)
    for part in parts:
        found: list[dict[str, Any]] = []
        while len(found) < len(part):
            batch = next(decoded)
            found += _classified(engine, classes, batch)
            moved(len(batch))
        yield part, pa.Table.from_pylist(found, SCHEMA)


def _batches(photos: Iterable[Photo], size: int) -> Iterator[list[Photo]]:
    left = iter(photos)
    while batch := list(islice(left, size)):
        yield batch


def _decoded(photo: Photo, in_channels: int, image_size: tuple[int, int]) -> tuple[str, Tensor | str]:
    """(what the result calls the photo, its pixels uint8 (C, H, W) or why there are none)."""
    try:
        picture, _ = picture_for(photo.source, photo.name, in_channels, image_size)
    except UserError as error:
        return photo.path, str(error)
    return photo.path, picture


def _classified(engine: Engine, classes: Sequence[str], batch: list[tuple[str, Tensor | str]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"path": _text(path)} for path, _ in batch]
    good = [(row, picture) for row, (_, picture) in zip(rows, batch, strict=True) if isinstance(picture, Tensor)]
    for row, (_, reason) in zip(rows, batch, strict=True):
        if isinstance(reason, str):
            row["error"] = _text(reason)
    if not good:
        return rows
    trace = engine(torch.stack([picture for _, picture in good]))
    check_finite(trace.logits)
    probability, predicted = trace.logits.softmax(1).max(1)
    columns = (predicted, probability, trace.decisions, trace.macs, trace.exit_stage)
    for (row, _), label, share, path, macs, stage in zip(good, *(column.tolist() for column in columns), strict=True):
        row |= {"class": classes[label], "probability": share, "decisions": path, "macs": macs, "exit_stage": stage}
    return rows


def _text(words: str) -> str:
    r"""As UTF-8 can say it: bytes of a file name that are no text are spelt, `\udcff`, as on a terminal."""
    return words.encode("utf-8", "backslashreplace").decode("utf-8")
