"""Export to ONNX: portable operators only, everything a user needs in the file's metadata, nothing kept that disagrees.

Metadata (all text; lists and tables as JSON): `spnet` version, `format`, `sha256` (`reader.signature`), `form`
(single, batch or path), `backbone`, `classes`, `mean` and `std` per channel in units of [0, 1], `input_shape` (C, H,
W), `path` (of form path, else null), `int8` (bits of the weights; not there in fp32), `macs`: {stem, head,
router_start, blocks: per block its options' multiply-adds, routers: per block}. The cost of an image is stem + head +
router_start + sum over blocks of blocks[i][decision] + routers[i].

Shapes: B samples, N blocks.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor

from spnet.errors import UserError, check_finite, choose
from spnet.files import write_bytes
from spnet.inference.export.compare import compare_int8, refuse, runner
from spnet.inference.export.int8_report import Int8Report
from spnet.inference.export.reader import FORMAT, UNSIGNED, signature
from spnet.inference.runtimes.onnx.agreement import (
    LOGIT_TOLERANCE,
    Run,
    disagreement,
    own_decisions_disagreement,
    probe,
    relative_error,
)
from spnet.inference.runtimes.onnx.int8 import Quantisation
from spnet.inference.runtimes.onnx.library import load_runtime
from spnet.inference.runtimes.onnx.network import check_form, dynamic_model, path_model
from spnet.network.dynamic import DynamicNetwork
from spnet.version import __version__

FORMS = ("single", "batch", "path")
RANDOM_PATHS = 100


@dataclass(frozen=True)
class Exported:
    """What was written and how it was checked.

    Attributes:
        form: `single`, `batch` or `path`.
        paths: forced paths compared (one for form `path`).
        images: images whose own decisions were compared, of which `real` are not random.
        close: images left out because a router's margin was below 1e-4.
        error: largest difference of logits on own decisions, over the sample's largest logit.
        int8: of a file in 8 bits, its accuracy and speed beside fp32.
    """

    file: str
    form: str
    bytes: int
    paths: int
    images: int
    real: int
    close: int
    error: float
    int8: Int8Report | None = None


def export_onnx(
    net: DynamicNetwork,
    file: str | Path,
    *,
    form: str = "single",
    path: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    images: Tensor | None = None,
    int8: Quantisation | None = None,
) -> Exported:
    """Write `net` to `file` after comparing the graph with the eager network.

    Args:
        form: `single` (one image; an `If` per block), `batch` (any number; gather and scatter) or `path` (no routers).
        path: for form `path`: N options; None runs every block in full.
        classes: names of the classes, kept in the file.
        images: (B, C, H, W) real images to compare on, beside random ones.
        int8: write this instead of the network's own weights; the graph is compared with the quantised static network.

    Raises:
        UserError: an argument makes no sense, a part of the network has no ONNX form, onnxruntime is missing, or the
            file cannot be written.
        RuntimeError: the graph disagrees with the network; nothing is written.
    """
    choose("form", form, FORMS)
    check_comparable(net, classes, images)
    load_runtime()
    check_form(net)
    training = net.training
    try:
        return _export(net.eval(), Path(file), form, path, classes, images, int8)
    finally:
        net.train(training)


def check_comparable(net: DynamicNetwork, classes: Sequence[str], images: Tensor | None) -> None:
    """`UserError` unless the names are the network's and the images to compare on hold numbers."""
    if classes and len(classes) != net.num_classes:
        raise UserError(f"{len(classes)} names for {net.num_classes} classes: name each, or none.")
    if images is not None and images.is_floating_point() and not bool(images.isfinite().all()):
        raise UserError("the images to compare on hold NaN or infinite values: check how they were normalised.")


def _export(
    net: DynamicNetwork,
    file: Path,
    form: str,
    path: Sequence[int] | None,
    classes: Sequence[str],
    images: Tensor | None,
    int8: Quantisation | None,
) -> Exported:
    if form == "path":
        options = torch.tensor(net.options) - 1 if path is None else torch.tensor(list(path))
        options = net.checked_path(torch.zeros(1, *net.input_shape), options)[0]
        model = path_model(net, options.tolist(), int8=int8)
    else:
        model = dynamic_model(net, "single" if form == "single" else "batch", int8=int8)
        options = None
    for key, value in _metadata(net, form, classes, options).items():
        model.metadata_props.add(key=key, value=value)
    if int8 is not None:
        model.metadata_props.add(key="int8", value=str(int8.bits))
    onnx.checker.check_model(model, full_check=True)
    compare = _compare if int8 is None else partial(compare_int8, int8)
    checks = compare(net, model, form, options, images)
    model.metadata_props.add(key="sha256", value=UNSIGNED.decode())
    content = model.SerializeToString()
    content = content.replace(UNSIGNED, signature(content, "").encode())
    write_bytes(file, content)
    return Exported(file=str(file), form=form, bytes=len(content), **checks)


def parse_path(net: DynamicNetwork, text: str) -> list[int] | None:
    """`all`, or one figure a block such as `111|010|011` (stages may be set apart by | or commas), as `spnet
    predict` prints."""
    if text == "all":
        return None
    figures = text.replace("|", "").replace(",", "").replace(" ", "")
    if not figures.isdecimal() or len(figures) != len(net.blocks):
        raise UserError(
            f"a path is 'all' or one figure for each of {len(net.blocks)} blocks, such as 110|011|111; not '{text}'."
        )
    return [int(figure) for figure in figures]


def images_and_classes(net: DynamicNetwork, classes: Sequence[str]) -> dict[str, Any]:
    """What whoever runs an export must know: names, in numbers where there are none, and how images are prepared."""
    return {
        "classes": list(classes) or [str(k) for k in range(net.num_classes)],
        "mean": net.mean.flatten().tolist(),
        "std": net.std.flatten().tolist(),
        "input_shape": list(net.input_shape),
    }


def _metadata(net: DynamicNetwork, form: str, classes: Sequence[str], path: Tensor | None) -> dict[str, str]:
    router = net.router if path is None else None
    macs = {
        "stem": net.backbone.stem_macs,
        "head": net.backbone.head_macs,
        "router_start": router.start_macs if router else 0,
        "blocks": [list(block.macs) for block in net.blocks],
        "routers": list(router.macs) if router else [0] * len(net.blocks),
    }
    values: dict[str, Any] = {
        **images_and_classes(net, classes),
        "macs": macs,
        "stages": list(net.backbone.stages.lengths),
        "path": None if path is None else path.tolist(),
    }
    plain = {"spnet": __version__, "format": str(FORMAT), "form": form, "backbone": net.backbone.name}
    return plain | {key: json.dumps(value) for key, value in values.items()}


def _compare(
    net: DynamicNetwork, model: ModelProto, form: str, path: Tensor | None, real: Tensor | None
) -> dict[str, Any]:
    """Compare on forced paths and on own decisions; RuntimeError at the first difference."""
    noise, decisions = probe(net, RANDOM_PATHS)
    sets = [noise[:32]] + ([real] if real is not None and len(real) else [])
    with torch.no_grad():
        check_finite(net.forward_path(noise[:32], torch.tensor(net.options) - 1 if path is None else path).logits)
    counts = {"images": sum(map(len, sets)), "real": 0 if real is None else len(real)}

    run = runner(model, single=form == "single")
    if path is not None:
        error = max(_path_error(net, run, path, images) for images in sets)
        refuse(None if error <= LOGIT_TOLERANCE else f"its logits differ by {error:.1e} of the largest")
        return {**counts, "paths": 1, "close": 0, "error": error}
    refuse(disagreement(net, noise, decisions, run))
    found = [own_decisions_disagreement(net, images, run) for images in sets]
    for wrong, _, _ in found:
        refuse(wrong)
    return {
        **counts,
        "paths": len(decisions),
        "close": sum(close for _, close, _ in found),
        "error": max(error for _, _, error in found),
    }


@torch.no_grad()
def _path_error(net: DynamicNetwork, run: Run, path: Tensor, images: Tensor) -> float:
    expected = net.forward_path(images, path, heads=False).logits
    return relative_error(run(net.prepare(images).float().numpy(), None)[0], expected)
