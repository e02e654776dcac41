"""Opening an exported file: the checks that turn a wrong file into one clear line."""

import hashlib
import json
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from spnet.data.normalised import advice, looks_like_bytes
from spnet.errors import ImagesWarning, UserError
from spnet.inference.runtimes.onnx.library import load_runtime, open_session
from spnet.inference.runtimes.onnx.quantise import check_processor
from spnet.runs.forms import Misfit, fill

FORMAT = 2
"""Raised when the meaning of the metadata, inputs or outputs changes."""
UNSIGNED = b"unsigned" * 8
"""Stands where the signature will: as long as one."""


@dataclass(frozen=True)
class _Macs:
    stem: int
    head: int
    router_start: int
    blocks: tuple[tuple[int, ...], ...]
    routers: tuple[int, ...]


@dataclass(frozen=True)
class _Tables:
    """What is JSON in the metadata, and what it holds."""

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, ...]
    macs: _Macs
    stages: tuple[int, ...]
    path: tuple[int, ...] | None


class ExportedNetwork:
    """An exported network.

    Attributes:
        facts: the file's metadata, lists and tables as Python values (see `spnet.inference.export.onnx_file`).
    """

    def __init__(self, session: Any, facts: dict[str, Any]) -> None:
        self.session = session
        self.facts = facts

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 or normalised float images (B, C, H, W) -> logits (B, classes), decisions (B, N); any B, whatever
        the form."""
        expected = tuple(self.facts["input_shape"])
        if images.ndim != 4 or images.shape[1:] != expected or not len(images):
            raise UserError(f"this file takes images of (B, {', '.join(map(str, expected))}), not {images.shape}.")
        floats = np.issubdtype(images.dtype, np.floating)
        if images.dtype == np.uint8:
            mean, std = (np.asarray(self.facts[key], np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
            images = (images / np.float32(255) - mean) / std
        elif not floats:
            raise UserError(f"images are uint8 (0 to 255) or normalised floats, not {images.dtype}: convert them.")
        images = images.astype(np.float32)
        low, high = float(images.min()), float(images.max())  # both are NaN where any value is
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UserError("the images hold NaN or infinite values: check how they were normalised.")
        if floats and looks_like_bytes(low, high):
            warnings.warn(advice(high), ImagesWarning, stacklevel=2)
        size = 1 if self.facts["form"] == "single" else len(images)
        rows = [self.session.run(None, {"image": images[k : k + size]}) for k in range(0, len(images), size)]
        logits = np.concatenate([row[0] for row in rows])
        if self.facts["path"] is not None:
            return logits, np.tile(np.asarray(self.facts["path"], np.int64), (len(images), 1))
        return logits, np.concatenate([row[1] for row in rows])

    def macs(self, decisions: np.ndarray) -> np.ndarray:
        """(B,) multiply-adds of decisions (B, N); `UserError` for options that no block has."""
        table = self.facts["macs"]
        always = table["stem"] + table["head"] + table["router_start"] + sum(table["routers"])
        try:
            return always + sum(np.asarray(table["blocks"][i])[decisions[:, i]] for i in range(decisions.shape[1]))
        except IndexError as error:
            raise UserError("these decisions name options that the blocks of this file do not have.") from error


def open_export(file: str | Path, threads: int = 1) -> ExportedNetwork:
    """Open a file written by `export_onnx`.

    Raises:
        UserError: there is no such file, it is damaged, it is no export of spnet, or one of another format.
    """
    path = Path(file)
    load_runtime()
    try:
        content = path.read_bytes()
        session = open_session(content, threads, spinning=threads > 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # onnxruntime raises types of its own
        raise UserError(f"{path} is damaged or no ONNX file: export the run again ({str(error)[:80]}).") from error
    facts: dict[str, Any] = dict(session.get_modelmeta().custom_metadata_map)
    if "spnet" not in facts:
        raise UserError(f"{path} is an ONNX file, but not one that spnet export wrote.")
    if facts.get("format") != str(FORMAT):
        found = f"format {facts.get('format')} (spnet {facts['spnet']})"
        raise UserError(f"{path} has {found}; this spnet reads format {FORMAT}: export the run again.")
    if signature(content, facts.get("sha256", "")) != facts.get("sha256"):
        raise UserError(f"{path} is damaged: its bytes are not those that were exported. Export the run again.")
    if facts.get("int8") == "8":
        check_processor(8, str(path), "export the run here")
    if facts.get("form") == "cascade":
        raise UserError(f"{path} is a whole cascade: open its members, which its .json names, or use onnxruntime.")
    try:
        facts |= {field.name: json.loads(facts[field.name]) for field in fields(_Tables)}
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: its metadata lack {error}. Export the run again.") from error
    try:
        fill(_Tables, facts, whole=True)
        wrong = _disagreement(session, facts)
    except Misfit as error:
        wrong = error.name
    if wrong is not None:
        raise UserError(f"{path} is damaged: '{wrong}' in its metadata is of the wrong kind. Export the run again.")
    return ExportedNetwork(session, facts)


def _disagreement(session: Any, facts: dict[str, Any]) -> str | None:
    """The first of the metadata that does not go with the graph or with the others."""
    batch, *shape = session.get_inputs()[0].shape
    blocks, channels = len(facts["macs"]["blocks"]), facts["input_shape"][0] if facts["input_shape"] else 0
    path = facts["path"]
    agrees = {
        "form": facts.get("form") == ("single" if batch == 1 else "batch" if path is None else "path"),
        "input_shape": facts["input_shape"] == shape,
        "classes": session.get_outputs()[0].shape[-1] == len(facts["classes"]),
        "mean": len(facts["mean"]) == channels,
        "std": len(facts["std"]) == channels and min(facts["std"], default=0) > 0,
        "stages": sum(facts["stages"]) == blocks,
        "macs": len(facts["macs"]["routers"]) == blocks,
        "path": path is None or (len(path) == blocks and _options(path, facts["macs"]["blocks"])),
    }
    return next((name for name, fits in agrees.items() if not fits), None)


def _options(path: list[int], blocks: list[list[int]]) -> bool:
    return all(0 <= option < len(macs) for option, macs in zip(path, blocks, strict=True))


def signature(content: bytes, entry: str) -> str:
    """What a file's metadata say under `sha256`: the digest of its bytes, with `UNSIGNED` where that entry stands."""
    return hashlib.sha256(content.replace(entry.encode(), UNSIGNED) if entry else content).hexdigest()
