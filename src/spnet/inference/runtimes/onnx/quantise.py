"""int8: a graph with its tensors rounded to 8 bits, by scales that calibration images set (QDQ form).

Activations are unsigned, weights signed and one scale a channel: on x86 processors onnxruntime has fast kernels for
that pair alone. Both signed, its default, was as slow as fp32 without VNNI when measured.
"""

import platform
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import ModelProto
from torch import Tensor

from spnet.data import Source
from spnet.errors import UserError
from spnet.inference.calibrate import spread_indices
from spnet.inference.runtimes.onnx.library import load_runtime
from spnet.inference.runtimes.onnx.pixels import Pixels
from spnet.inference.runtimes.protocol import Images
from spnet.network.dynamic import DynamicNetwork
from spnet.progress import counted

CALIBRATION_IMAGES = 256
"""As many set the scales, where there are more."""
CHUNK = 32
VNNI = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")


def needs_seven_bits() -> bool:
    """Whether this processor adds products of 8-bit numbers in 16 bits, where two large ones saturate: x86 without
    VNNI. Weights of 7 bits never do. ResNet-32 on CIFAR-10 lost a point with 8 bits there, nothing with 7."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return not any(found.get(name) for name in VNNI)


def check_processor(bits: int, what: str, remedy: str) -> None:
    """Raise `UserError` for weights of 8 bits, made elsewhere, on a processor that needs 7."""
    if bits == 8 and needs_seven_bits():
        raise UserError(f"{what} has int8 weights of 8 bits, which overflow on this processor: {remedy}.")


def calibration_images(net: DynamicNetwork, images: Images | Source) -> np.ndarray:
    """Those that set the scales: `CALIBRATION_IMAGES`, evenly spaced over what is given, or all of fewer; (M, C, H, W)
    normalised float32."""
    some = spread_indices(len(images), CALIBRATION_IMAGES)
    if isinstance(images, np.ndarray):
        return Pixels(net)(images[some.numpy()])
    return Pixels(net)(images[some] if isinstance(images, Tensor) else cast(Source, images).select(some).images)


def check_calibration(images: np.ndarray) -> None:
    """Raise `UserError` for normalised images (M, C, H, W) that no scale can be read from."""
    if len(images) == 0:
        raise UserError("int8 takes its scales from calibration images: give at least one.")
    if not np.isfinite(images).all():
        raise UserError("the calibration images hold NaN or infinite values: check how they were normalised.")


def quantised(
    model: ModelProto, images: np.ndarray, *, seven_bits: bool | None = None, scales: Mapping[str, Any] | None = None
) -> ModelProto:
    """The model in QDQ form; the one given stays as it is.

    Args:
        model: its one input that is left open is `image`.
        images: (M, C, H, W) normalised float32 to calibrate on: the least and the largest value of each tensor count.
        seven_bits: weights of 7 bits; None asks `needs_seven_bits`.
        scales: by tensor, the (least, largest) value to use instead of what calibration finds.

    Raises:
        UserError: no images, or NaN among them.
    """
    check_calibration(images)
    load_runtime()
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            chunks = np.split(images, range(CHUNK, len(images), CHUNK))
            self.chunks: Iterator[np.ndarray] = counted(chunks, "images quantised on", len(images), len)

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            chunk = next(self.chunks, None)
            return None if chunk is None else {"image": chunk}

    given = ModelProto()
    given.CopyFrom(model)  # the quantiser moves the weights of what it is given into a file
    given.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # batch norms are folded already
    fixed = {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in (scales or {}).items()
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_static(
            given,
            file,
            Reader(),
            per_channel=True,
            reduce_range=needs_seven_bits() if seven_bits is None else seven_bits,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": fixed} if fixed else None,
        )
        made = onnx.load(file)
    del made.metadata_props[:]
    return made
