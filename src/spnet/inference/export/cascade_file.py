"""A cascade as files: one a member, a small JSON that says how they go together, and the whole as one graph.

`NAME.onnx` is the whole, for single images: an `If` after each member but the last, the next member inside its
branch. Inputs: `image` (1, C, H, W) normalised float32, and `confidences` (M - 1,) double, which may be left out.
Outputs: `logits` (1, classes); `decisions` (1, N) of all members' blocks, -1 where a member was not reached;
`exit_stage` (1, 1), the member that answered. `NAME-1.onnx` ... `NAME-M.onnx` are the members, as `export_onnx` writes
them, and `NAME.json` names them: for runtimes that keep both branches of an `If`, or run it slowly, and for batches.

Shapes: M members, N blocks of all members together.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto
from torch import Tensor

from spnet.errors import UserError
from spnet.files import write_bytes, write_json
from spnet.inference.cascade.network import Cascade, check_normalised_alike
from spnet.inference.export.onnx_file import RANDOM_PATHS, Exported, export_onnx, images_and_classes
from spnet.inference.export.reader import FORMAT, UNSIGNED, signature
from spnet.inference.runtimes.onnx.agreement import LOGIT_TOLERANCE, probe
from spnet.inference.runtimes.onnx.cascade import cascade_model
from spnet.inference.runtimes.onnx.library import open_session
from spnet.version import __version__


@dataclass(frozen=True)
class ExportedCascade:
    """What was written: the `whole` (None in batch form), the `recipe` that names the members, the `members`; the whole
    was compared with the members on so many `images`, logits within `error`."""

    whole: str | None
    recipe: str
    members: tuple[Exported, ...]
    images: int
    error: float


def export_cascade(
    cascade: Cascade,
    file: str | Path,
    *,
    form: str = "single",
    names: Sequence[str] = (),
    classes: Sequence[str] = (),
    images: Tensor | None = None,
) -> ExportedCascade:
    """Write a cascade; every member is verified against its eager network, the whole against the members.

    Args:
        form: of the members: `single`, or `batch`, which has no whole.
        names: of the members, kept in the JSON.
        classes, images: as of `export_onnx`.

    Raises:
        UserError: as `export_onnx`; members that normalise in different ways; a file that is not named `*.onnx`.
        RuntimeError: a graph disagrees.
    """
    file = Path(file)
    if file.suffix != ".onnx":
        raise UserError(f"a cascade becomes several files beside '{file}': name it with the ending .onnx.")
    check_normalised_alike(cascade)
    files = [file.with_name(f"{file.stem}-{k}.onnx") for k in range(1, 1 + len(cascade.networks))]
    written: list[Path] = []
    try:
        return _export(cascade, file, files, written, form, names, classes, images)
    except BaseException:  # members without their cascade are of no use
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _export(
    cascade: Cascade,
    file: Path,
    files: Sequence[Path],
    written: list[Path],
    form: str,
    names: Sequence[str],
    classes: Sequence[str],
    images: Tensor | None,
) -> ExportedCascade:
    """`written`: told what lies there already, should the rest fail."""
    members = []
    for member, path in zip(cascade.networks, files, strict=True):
        members.append(export_onnx(member, path, form=form, classes=classes, images=images))
        written.append(path)
    sets = [probe(cascade.last, RANDOM_PATHS)[0][:32]] + ([] if images is None else [cascade.prepare(images).float()])
    compared = [image.numpy() for part in sets for image in part.split(1)]
    error = 0.0
    if form == "single":
        model = cascade_model(cascade)
        onnx.checker.check_model(model, full_check=True)
        error = _disagreement(cascade, model, files, compared)
        for key, value in _metadata(cascade, classes).items():
            model.metadata_props.add(key=key, value=value)
        content = model.SerializeToString()
        write_bytes(file, content.replace(UNSIGNED, signature(content, "").encode()))
    recipe = file.with_suffix(".json")
    write_json(
        recipe,
        {
            "spnet": __version__,
            "members": [path.name for path in files],
            "names": list(names),
            "confidences": list(cascade.confidences),
            "whole": file.name if form == "single" else None,
        },
    )
    whole = str(file) if form == "single" else None
    return ExportedCascade(whole, str(recipe), tuple(members), len(compared) if whole else 0, error)


def _disagreement(cascade: Cascade, model: ModelProto, files: Sequence[Path], images: list[np.ndarray]) -> float:
    """Largest difference of logits between the whole and the members run one after another, over the largest logit;
    RuntimeError where they answer differently."""
    whole = open_session(model.SerializeToString())
    members = [open_session(path.read_bytes()) for path in files]
    worst = 0.0
    for image in images:
        for confidences in (cascade.confidences, (0.0,) * len(cascade.confidences), (1.0,) * len(cascade.confidences)):
            feeds = {"image": image, "confidences": np.array(confidences, np.float64)}
            logits, decisions, stage = whole.run(None, feeds)
            expected, path, answered = _one_after_another(members, image, confidences)
            error = float(np.abs(logits - expected).max() / np.abs(expected).max())
            worst = max(worst, error)
            if int(stage[0, 0]) != answered or error > LOGIT_TOLERANCE or decisions[0, : len(path)].tolist() != path:
                raise RuntimeError("the graph of the whole cascade disagrees with its members, so it was not written.")
    return worst


def _one_after_another(
    members: Sequence[Any], image: np.ndarray, confidences: Sequence[float]
) -> tuple[np.ndarray, list[int], int]:
    """Logits, decisions of the members that ran, and which answered."""
    path: list[int] = []
    for k, (member, confidence) in enumerate(zip(members, (*confidences, 0.0), strict=True)):
        logits, decisions = member.run(None, {"image": image})
        path += decisions[0].tolist()
        wide = logits.astype(np.float64)
        if k == len(members) - 1 or 1 / np.exp(wide - wide.max()).sum() > confidence:
            return logits, path, k
    raise AssertionError("the last member always answers")


def _metadata(cascade: Cascade, classes: Sequence[str]) -> dict[str, str]:
    values: dict[str, Any] = {
        **images_and_classes(cascade.last, classes),
        "stages": list(cascade.stage_lengths),
    }
    plain = {"spnet": __version__, "format": str(FORMAT), "form": "cascade", "sha256": UNSIGNED.decode()}
    return plain | {key: json.dumps(value) for key, value in values.items()}
