"""OpenVINO, fp32 and int8. It reads the same files as onnxruntime; int8 is the QDQ file, whose scales it takes over.

Told to compute in fp32: left to itself it takes bf16 where the processor has it. Threads float as those of the others.
"""

import importlib
import importlib.util
from functools import partial
from typing import Any

import numpy as np

from spnet.bench.rivals.protocol import Bind, Call, Case, Rival


class OpenVino(Rival):
    def __init__(self, name: str, *, int8: bool = False) -> None:
        self.name = name
        self.int8 = int8

    def why_not(self) -> str | None:
        return None if importlib.util.find_spec("openvino") else "pip install 'spnet[openvino]'"

    def open(self, case: Case) -> Bind:
        from spnet.inference.runtimes.onnx.network import path_model

        openvino: Any = importlib.import_module("openvino")
        content = case.int8 if self.int8 else path_model(case.net).SerializeToString()
        core = openvino.Core()
        model = core.read_model(content)
        model.reshape([case.batch, *case.net.input_shape])
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": case.threads,
            "ENABLE_CPU_PINNING": False,
        }
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        logits = np.empty((case.batch, case.net.num_classes), np.float32)
        request.set_output_tensor(openvino.Tensor(logits, shared_memory=True))

        def call(images: Any) -> np.ndarray:
            request.set_input_tensor(images)
            request.infer()
            return logits

        def bind(images: np.ndarray) -> Call:
            return partial(call, openvino.Tensor(images, shared_memory=True))

        return bind
