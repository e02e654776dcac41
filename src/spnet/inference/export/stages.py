"""A network as a folder of static graphs, for runtimes that have no `If` or run it badly: OpenVINO, TensorRT, mobile.

The folder holds the graphs (`cut`), `stages.json` and `run_stages.py`, which runs them without spnet. `stages.json`:

- `classes`, `mean` and `std` per channel in units of [0, 1], `input_shape` (C, H, W), `backbone`, `spnet`, `format`;
- `steps`, in order. Of each, `options`: one piece, or, where there is a `block`, one for each of its options. Of each
  piece its `file` (null: nothing to compute), the names of its `inputs` and `outputs` in the file's order, and `macs`,
  multiply-adds; `constants` are values known beforehand, to be kept with its outputs. `decides`: blocks whose scores
  it puts out, one after another, as `scores`. `exit`: an image leaves with the `logits` of this step if the largest
  probability of their softmax reaches `confidence`; the first `blocks` blocks lie behind it then;
- `decision_shift` and, for each option of each block, `costs`: a block takes the option with the largest score +
  decision_shift x cost, the first one of equals. Another shift or confidence is another budget;
- `static_macs`, and `sha256` of every file.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spnet.errors import UserError, check_finite
from spnet.files import cannot_write, write_bytes, write_json
from spnet.inference.export import run_stages
from spnet.inference.export.cut import Piece, cut
from spnet.inference.export.onnx_file import RANDOM_PATHS, check_comparable, images_and_classes
from spnet.inference.runtimes.onnx.agreement import LOGIT_TOLERANCE, clear_samples, probe, relative_error
from spnet.inference.runtimes.onnx.library import load_runtime
from spnet.inference.runtimes.onnx.network import check_form
from spnet.network.dynamic import DynamicNetwork
from spnet.network.heads import check_exit
from spnet.network.modes import evaluating
from spnet.network.trace import UNREACHED, Trace
from spnet.progress import counted
from spnet.version import __version__

FORMAT = 1
"""Raised when the meaning of `stages.json` changes."""
PLAN, RUNNER = "stages.json", "run_stages.py"
NEVER = 2.0
"""A confidence that no probability reaches."""


@dataclass(frozen=True)
class ExportedStages:
    """What was written and how it was checked.

    Attributes:
        files: graphs in the folder; `bytes` of all of them.
        steps: of the plan, `exits` of them with an exit.
        paths: forced paths compared, among them every option of every block.
        images: images whose own decisions were compared, of which `real` are not random.
        close: images left out because a router's margin, or that of an exit, was below 1e-4.
        error: largest difference of logits, over the sample's largest logit.
    """

    folder: str
    files: int
    bytes: int
    steps: int
    exits: int
    paths: int
    images: int
    real: int
    close: int
    error: float


def export_stages(
    net: DynamicNetwork,
    folder: str | Path,
    *,
    exit_confidence: float | None = None,
    classes: Sequence[str] = (),
    images: Tensor | None = None,
) -> ExportedStages:
    """Write `net` as static graphs from router to router, after comparing all of them with the eager network in
    onnxruntime; the folder appears whole or not at all.

    Args:
        folder: not there yet.
        exit_confidence: images may leave at the network's stage heads too, at this class probability.
        classes: names of the classes, kept in the folder.
        images: (B, C, H, W) real images to compare on, beside random ones.

    Raises:
        UserError: an argument makes no sense, the network decides nothing, a part of it has no ONNX form or none of a
            fixed shape, onnxruntime is missing, the folder is there or cannot be written.
        RuntimeError: a graph disagrees with the network; nothing is written.
    """
    check_comparable(net, classes, images)
    check_exit(net.stage_heads, exit_confidence)
    if not any(net.gated) and exit_confidence is None:
        remedy = "give an exit confidence" if net.stage_heads is not None else "export it as one static path"
        raise UserError(f"this network decides nothing, so there is nothing to cut: {remedy}.")
    load_runtime()
    check_form(net)

    def write(place: Path) -> ExportedStages:
        with evaluating(net):
            _write(net, place, exit_confidence, classes)
            return _compare(net, place, Path(folder), exit_confidence, images)

    return _whole(Path(folder), write)


def _whole(folder: Path, write: Callable[[Path], ExportedStages]) -> ExportedStages:
    """Fill a neighbour of the folder, then give it its name."""
    if os.path.lexists(folder):
        raise UserError(f"{folder} is there already: name a folder that is not, or remove it.")
    temporary = folder.with_name(f".spnet-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        temporary.mkdir(parents=True)
        found = write(temporary)
        temporary.rename(folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(error, OSError):
            raise cannot_write(folder, error) from error
        raise
    return found


def _write(net: DynamicNetwork, folder: Path, exit_confidence: float | None, classes: Sequence[str]) -> None:
    digests: dict[str, str] = {}

    def keep(piece: Piece, name: str) -> dict[str, Any]:
        if piece.model is not None:
            content = piece.model.SerializeToString()
            digests[name] = hashlib.sha256(content).hexdigest()
            write_bytes(folder / name, content)
        told: dict[str, Any] = {"inputs": list(piece.inputs), "outputs": list(piece.outputs), "macs": piece.macs}
        if piece.constants:
            told["constants"] = {name: value.tolist() for name, value in piece.constants.items()}
        return {"file": None if piece.model is None else name, **told}

    ends = net.backbone.stages.last_blocks
    steps: list[dict[str, Any]] = []
    for n, step in enumerate(cut(net, exits=exit_confidence is not None)):
        place = "" if step.block is None else f"-block{step.block}"
        of_option = [f"-option{k}" if place else "" for k in range(len(step.options))]
        pieces = zip(step.options, of_option, strict=True)
        told: dict[str, Any] = {"options": [keep(piece, f"{n:03}{place}{option}.onnx") for piece, option in pieces]}
        if step.block is not None:
            told["block"] = step.block
        if step.decides:
            told["decides"] = list(step.decides)
        if step.exit is not None:
            told["exit"] = {"stage": step.exit, "blocks": ends[step.exit] + 1, "confidence": exit_confidence}
        steps.append(told)
    plan = {
        "spnet": __version__,
        "format": FORMAT,
        "backbone": net.backbone.name,
        **images_and_classes(net, classes),
        "static_macs": net.static_macs,
        "decision_shift": float(net.decision_shift),
        "costs": [net.option_costs(i).tolist() for i in range(len(net.blocks))],
        "steps": steps,
        "sha256": digests,
    }
    write_json(folder / PLAN, plan)
    write_bytes(folder / RUNNER, Path(run_stages.__file__).read_bytes())


@torch.no_grad()
def _compare(
    net: DynamicNetwork, place: Path, folder: Path, exit_confidence: float | None, real: Tensor | None
) -> ExportedStages:
    """Run the folder's own runner beside the eager network; RuntimeError at the first difference."""
    stages = run_stages.Stages(place)
    exits = [step["exit"] for step in stages.plan["steps"] if "exit" in step]
    noise, paths = probe(net, RANDOM_PATHS)
    every = [[min(k, options - 1) for options in net.options] for k in range(max(net.options))]
    paths = torch.cat([torch.maximum(torch.tensor(every), net.cheapest_path.cpu()), paths])
    noise = torch.cat([noise[: len(every)], noise])
    check_finite(net.forward_path(noise[:32], paths[:32], heads=False).logits)
    for leave in exits:
        leave["confidence"] = NEVER
    worst = _difference(net, stages, noise, net.forward_path(noise, paths, heads=bool(exits)), paths)
    used = {p["file"] for step in stages.plan["steps"] for p in step["options"]} - {None}
    sets = [noise[:32]] + ([real] if real is not None and len(real) else [])
    close = 0
    for images in sets:
        for at in (None, *exits):  # as it will run, then with all leaving at one exit, whichever
            asked = exit_confidence if at is None else None
            for leave in exits:
                leave["confidence"] = exit_confidence if at is None else 0.0 if leave is at else NEVER
            trace = net(images, heads=bool(exits), exit_confidence=asked)
            clear = clear_samples(net, trace, asked)
            close += int((~clear).sum()) if at is None else 0
            trace = trace if at is None else _left_at(net, trace, at["stage"])
            worst = max(worst, _difference(net, stages, images, trace, None, clear))
    return ExportedStages(
        folder=str(folder),
        files=len(used),
        bytes=sum((place / name).stat().st_size for name in used),
        steps=len(stages.plan["steps"]),
        exits=len(exits),
        paths=len(paths),
        images=sum(map(len, sets)),
        real=0 if real is None else len(real),
        close=close,
        error=worst,
    )


def _left_at(net: DynamicNetwork, trace: Trace, stage: int) -> Trace:
    """The trace had every image left at a stage."""
    decisions = trace.decisions.clone()
    decisions[:, net.backbone.stages.last_blocks[stage] + 1 :] = UNREACHED
    exit_stage = torch.full_like(trace.exit_stage, stage)
    macs = net.macs_of(decisions, exit_stage, routed=net.router is not None, heads=True)
    logits = trace.stage_logits[net.classified_stages.index(stage)]
    return Trace(**{**vars(trace), "decisions": decisions, "exit_stage": exit_stage, "macs": macs, "logits": logits})


def _difference(
    net: DynamicNetwork,
    stages: run_stages.Stages,
    images: Tensor,
    trace: Trace,
    paths: Tensor | None = None,
    clear: np.ndarray | None = None,
) -> float:
    """Largest difference of logits; RuntimeError where it is too large, or images take other ways or cost more."""
    pixels = net.prepare(images).float().numpy()
    rows = np.arange(len(pixels)) if clear is None else np.flatnonzero(clear)
    asked = [None if paths is None else paths[k].tolist() for k in rows]
    compared = counted(zip(rows, asked, strict=True), "images compared", len(rows))
    found = [stages(pixels[k : k + 1], path) for k, path in compared]
    if not found:
        return 0.0
    logits, decisions, macs = zip(*found, strict=True)
    error = relative_error(np.concatenate(logits), trace.logits[rows])
    wrong = None
    if list(decisions) != trace.decisions[rows].tolist():
        wrong = "images take other ways"
    elif list(macs) != trace.macs[rows].tolist():
        wrong = "multiply-adds are not those of the network"
    elif error > LOGIT_TOLERANCE:
        wrong = f"logits differ by {error:.1e} of the largest"
    if wrong is not None:
        raise RuntimeError(f"the stages disagree with the network, so no folder was written: {wrong}.")
    return error
