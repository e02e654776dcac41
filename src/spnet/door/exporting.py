"""`spnet.export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from spnet.data import Dataset, Source
from spnet.door.given import images_for, opened
from spnet.errors import UserError
from spnet.inference.cascade import Cascade
from spnet.network.dynamic import DynamicNetwork
from spnet.runs.run import Run

if TYPE_CHECKING:
    from spnet.inference.export.cascade_file import ExportedCascade
    from spnet.inference.export.onnx_file import Exported
    from spnet.inference.export.stages import ExportedStages

VERIFIED_ON = 64
"""Real images an export is compared on."""


@overload
def export(
    network: "str | Path | Run | DynamicNetwork",
    file: str | Path,
    *,
    form: str = ...,
    path: Sequence[int] | None = ...,
    data: str | Dataset | Source | None = ...,
    int8: bool = ...,
    stages: Literal[False] = ...,
    exit_confidence: None = ...,
) -> "Exported": ...
@overload
def export(
    network: "str | Path | Run | DynamicNetwork",
    file: str | Path,
    *,
    data: str | Dataset | Source | None = ...,
    stages: Literal[True],
    exit_confidence: float | None = ...,
) -> "ExportedStages": ...
@overload
def export(
    network: Cascade, file: str | Path, *, form: str = ..., data: str | Dataset | Source | None = ...
) -> "ExportedCascade": ...
def export(
    network: "str | Path | Run | DynamicNetwork | Cascade",
    file: str | Path,
    *,
    form: str = "single",
    path: Sequence[int] | None = None,
    data: str | Dataset | Source | None = None,
    int8: bool = False,
    stages: bool = False,
    exit_confidence: float | None = None,
) -> "Exported | ExportedStages | ExportedCascade":
    """Write a network as an ONNX file of standard operators that runs without spnet, after comparing it with eager; or
    as a folder of static files, for runtimes that have no `If` or run it badly.

    Args:
        network: a run, its folder or name, a network; or a cascade, which becomes a file a member, one of the whole and
            a JSON file that says how they go together.
        file: where to.
        form: `single` (one image; skipped blocks are not computed), `batch` (any number of images) or `path` (one path,
            no routers).
        path: of form `path`: an option a block; None runs every block in full.
        data: whose test images it is compared on too; random ones alone when left out.
        int8: 8-bit weights and features, routers in fp32: calibrated on training images of the data (left out: the
            run's own), judged on its test images. `int8` of what is returned says `accuracy` and `accuracy_fp32` in
            percent, and `speed_up` over fp32 on this machine.
        stages: `file` is a new folder instead: one static graph from router to router, `stages.json` that says how they
            go together, and `run_stages.py`, which runs them by onnxruntime or OpenVINO.
        exit_confidence: of stages: images leave at the stage heads too, at this class probability.

    Raises:
        UserError: a part of the network has no ONNX form, onnxruntime is missing, the file cannot be written, or the
            folder is there already; int8 without data to calibrate on.
        RuntimeError: the graph disagrees with the network; nothing is written.

    Example:
        >>> spnet.export("runs/digits", "digits.onnx", data="digits").error < 1e-3
        True
        >>> spnet.export("runs/digits", "digits-stages", stages=True).error < 1e-3
        True
        >>> report = spnet.export("runs/digits", "digits-int8.onnx", int8=True).int8
        >>> report.calibrated_on, report.tested_on, abs(report.accuracy - report.accuracy_fp32) < 5
        (256, 450, True)
    """
    from spnet.inference.export import export_cascade, export_int8, export_onnx, export_stages

    net, run = opened(network)
    if isinstance(net, Cascade) and (path is not None or int8 or stages or exit_confidence is not None):
        raise UserError("path, int8, stages and exit_confidence are of one network: export a member on its own.")
    if int8 and stages:
        raise UserError("int8 is of one file, stages of many in fp32: choose one of them.")
    found = images = None
    if data is not None or int8:
        found = images_for(data, net, run)
        test = found.test if isinstance(found, Dataset) else found
        images = test.select(range(min(VERIFIED_ON, len(test)))).images
    classes = run.classes if run else net.classes or ()
    if isinstance(net, Cascade):
        return export_cascade(net, file, form=form, classes=classes, images=images)
    if stages:
        if form != "single" or path is not None:
            raise UserError("stages are for single images: leave out form and path.")
        return export_stages(net, file, exit_confidence=exit_confidence, classes=classes, images=images)
    if exit_confidence is not None:
        raise UserError("exit_confidence is for stages: add stages=True.")
    how: dict[str, Any] = {"form": form, "path": path, "classes": classes, "images": images}
    if not int8:
        return export_onnx(net, file, **how)
    if not isinstance(found, Dataset):
        raise UserError("int8 is calibrated on training and judged on test images: give a data set, not a part of one.")
    return export_int8(net, file, found, **how)
