"""A network in 8 bits as a file: calibrated on training images, compared, written, and judged on test images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from spnet.data import Dataset
from spnet.errors import choose
from spnet.inference.export.int8_report import report
from spnet.inference.export.onnx_file import FORMS, Exported, export_onnx
from spnet.inference.runtimes.onnx.int8 import Quantisation
from spnet.inference.runtimes.onnx.library import load_runtime
from spnet.inference.runtimes.onnx.network import check_form
from spnet.network.dynamic import DynamicNetwork


def export_int8(
    net: DynamicNetwork,
    file: str | Path,
    data: Dataset,
    *,
    form: str = "single",
    path: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    images: Tensor | None = None,
) -> Exported:
    """As `export_onnx`, in 8 bits; `int8` of what it returns says how accurate and how fast the file is beside fp32.

    Args:
        data: a few hundred of its training images set the scales, all of its test images judge.

    Raises:
        UserError, RuntimeError: as `export_onnx`; UserError also for a network that int8 does not suit.
    """
    choose("form", form, FORMS)
    load_runtime()
    check_form(net)
    int8 = Quantisation.of(net, data.train)
    exported = export_onnx(net, file, form=form, path=path, classes=classes, images=images, int8=int8)
    full = torch.tensor(net.options) - 1
    taken = None if form != "path" else full if path is None else torch.tensor(list(path))
    return replace(exported, int8=report(net, int8, data.test, path=taken))
