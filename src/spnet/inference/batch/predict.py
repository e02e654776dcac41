"""`predict_files`: an archive of photos through a network, with flat memory, gone on with after a kill."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from spnet.cluster import connected
from spnet.data.pictures import takes_pictures
from spnet.errors import UserError, check_count
from spnet.inference.batch.listing import PART, Listing, list_folder, list_parquet
from spnet.inference.batch.on_ray import classify_on
from spnet.inference.batch.parts import Parts, finished
from spnet.inference.batch.rows import classify
from spnet.inference.cascade import Cascade, Model
from spnet.inference.engine import Engine
from spnet.inference.programs import AUTO
from spnet.inference.runtimes.registry import RUNTIMES
from spnet.network.dynamic import DynamicNetwork
from spnet.progress import work
from spnet.runs.run import Run
from spnet.runs.weights import checksum
from spnet.version import __version__

BATCH_SIZE = 64


@dataclass(frozen=True)
class Predicted:
    """What `predict_files` has written.

    Attributes:
        out: the Parquet file; a row a photo, in order. Its columns are `spnet.inference.batch.rows.SCHEMA`.
        photos: rows.
        unreadable: rows with an `error`.
        kept: photos whose rows an earlier call had computed.
    """

    out: Path
    photos: int
    unreadable: int
    kept: int


def predict_files(
    network: "str | Path | Run | DynamicNetwork | Cascade",
    out: str | Path,
    *,
    folder: str | Path | None = None,
    parquet: str | Path | Sequence[str | Path] | None = None,
    executor: str = AUTO,
    exit_confidence: float | None = None,
    max_cost: float | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int = 1,
    part_size: int = PART,
    on: str = "",
    report: Callable[[int, int], None] = lambda done, photos: None,
) -> Predicted:
    """Classify every photo of a folder, or of Parquet files, into one Parquet file: path, class, probability,
    decisions, multiply-adds, and an error where a photo cannot be read.

    Parts are computed one after another and kept in `OUT.parts` until all are there. Called again after a kill it
    computes the others alone, and the file is the same, byte for byte, as if nothing had happened.

    Args:
        network: a run, its folder or name, a network, or a cascade; a network is put into eval mode.
        out: the file to write. There already: finished, if it was made of the same network, photos and settings.
        folder: all pictures in it and in its inner folders, in order of their names.
        parquet: instead, files with a column `image` or `img` (Hugging Face layout, or plain binary), in order of
            their names.
        executor: as of `Engine`; `auto` is settled once for all photos, and never takes the static network.
        exit_confidence, max_cost: as of `Engine`.
        batch_size: photos computed at a time.
        workers: threads that decode.
        part_size: photos of a part: what a kill may cost.
        on: a Ray cluster to compute on, `ray` or `ray:HOST:PORT`, with an engine a CPU; left out, here. Photos are read
            on its nodes; the rows, and the parts beside `out`, are the same.
        report: called with (photos done, photos in all) as they are done.

    Raises:
        UserError: no such network or photos; `out`, or the parts beside it, are of another network or list; no such
            cluster, or a node without spnet or the photos.

    Example:
        >>> import os
        >>> from PIL import Image
        >>> os.mkdir("photos")
        >>> Image.new("L", (8, 8)).save("photos/a.png")
        >>> made = spnet.predict_files("runs/digits", "rows.parquet", folder="photos")
        >>> made.photos, made.unreadable
        (1, 0)
    """
    check_count("batch_size", batch_size)
    check_count("workers", workers)
    check_count("part_size", part_size)
    model = network if isinstance(network, (DynamicNetwork, Cascade)) else Run(network).network()
    takes_pictures(model.input_shape[0])
    executor = _settled(executor, model, batch_size)
    engine = Engine(model, executor, exit_confidence=exit_confidence, max_cost=max_cost)
    listing = _listing(folder, parquet, part_size)
    about = {
        "network": fingerprint(model),
        "photos": listing.fingerprint,
        "executor": executor,
        "exit_confidence": exit_confidence,
        "max_cost": max_cost,
        "batch_size": batch_size,
        "part_size": part_size,
        "spnet": __version__,
    }
    out = Path(out)
    parts = Parts(out, about)
    if finished(out, about):
        parts.forget()
        report(len(listing), len(listing))
        return _written(out, kept=len(listing))
    with parts.opened(), contextlib.ExitStack() as stack:
        left = [part for part in listing.parts if not parts.has(part)]
        kept = done = len(listing) - sum(map(len, left))
        reached = stack.enter_context(work("photos", len(listing), done))

        def moved(photos: int) -> None:
            nonlocal done
            done += photos
            reached(done)
            report(done, len(listing))

        report(done, len(listing))
        compute = classify
        if on and left:
            compute = partial(classify_on, stack.enter_context(connected(on, listing.places)))
        computed = compute(engine, left, batch_size=batch_size, workers=workers, moved=moved)
        for part, rows in computed:
            parts.write(part, rows)
        parts.merge(listing.parts)
    return _written(out, kept)


def _listing(folder: str | Path | None, parquet: str | Path | Sequence[str | Path] | None, part_size: int) -> Listing:
    if (folder is None) == (parquet is None):
        raise UserError("give a folder of photos, or Parquet files: one of the two.")
    if folder is not None:
        return list_folder(Path(folder), part_size)
    assert parquet is not None
    files = [parquet] if isinstance(parquet, (str, Path)) else parquet
    return list_parquet([Path(file) for file in files], part_size)


def _settled(executor: str, model: Model, batch_size: int) -> str:
    """What `auto` stands for: the best runtime here that serves the whole model."""
    if executor != AUTO:
        return executor
    nets = model.networks if isinstance(model, Cascade) else (model,)
    serving = [name for name, runtime in RUNTIMES.items() if all(runtime.why_not(net) is None for net in nets)]
    return max(serving, key=lambda name: RUNTIMES[name].rank(batch_size))


def fingerprint(model: Model) -> str:
    """64 hex digits over what a model answers by: weights, thresholds, classes, how it was made."""
    nets = model.networks if isinstance(model, Cascade) else (model,)
    record = [
        [checksum(net.state_dict()), net.input_shape, net.classes, None if net.origin is None else asdict(net.origin)]
        for net in nets
    ]
    confidences = model.confidences if isinstance(model, Cascade) else ()
    return hashlib.sha256(json.dumps([record, confidences], default=str).encode()).hexdigest()


def _written(out: Path, kept: int) -> Predicted:
    with pq.ParquetFile(out) as file:
        errors = file.read(["error"]).column("error")
    return Predicted(out, len(errors), len(errors) - errors.null_count, kept)
