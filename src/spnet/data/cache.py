"""Where spnet keeps what it would not like to make or fetch twice: downloads and decoded images."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spnet.data.reason import NO_ARRAYS

Arrays = tuple[np.ndarray, np.ndarray]
_FORMAT = 2  # raise it when decoding changes


def cache_root() -> Path:
    """The folder named by the environment variable SPNET_CACHE, else `~/.cache/spnet`. It need not exist.

    A user without a home (a service, a container's bare user id) gets a folder of his own beside temporary files.
    """
    try:
        return Path(os.environ.get("SPNET_CACHE") or "~/.cache/spnet").expanduser()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"spnet-cache-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def decoded(file: Path, variant: str, make: Callable[[], Arrays]) -> Arrays:
    """`make()`, or what it returned for the same file (path, size, time of change) and variant the last time.

    Two `.npy` files, images (N, C, H, W) uint8 and labels (N,) int64, each written whole or not at all. A cache that
    cannot be read or written is passed over without a word.
    """
    state = file.stat()
    key = f"{_FORMAT}|{file.resolve()}|{state.st_size}|{state.st_mtime_ns}|{variant}"
    folder = cache_root() / "decoded" / hashlib.sha256(key.encode()).hexdigest()[:32]
    with contextlib.suppress(*NO_ARRAYS):
        images = np.load(folder / "images.npy", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        whole = images.dtype == np.uint8 and images.ndim == 4 and labels.dtype == np.int64
        if whole and labels.shape == images.shape[:1]:
            return images, labels
    images, labels = make()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "labels.npy", labels)
        _write(folder / "images.npy", images)
    return images, labels


def _write(target: Path, array: np.ndarray) -> None:
    """Write beside the target, then rename: a reader meets the whole file or none."""
    handle, scratch = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        os.replace(scratch, target)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
