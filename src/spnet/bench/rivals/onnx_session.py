"""onnxruntime, fp32 and int8: one session with threads inside, or single-threaded workers that share a batch."""

import importlib.util
from functools import partial

import numpy as np

from spnet.bench.rivals.protocol import Bind, Call, Case, Rival


class OnnxRuntime(Rival):
    def __init__(self, name: str, *, workers: bool = False, int8: bool = False) -> None:
        self.name = name
        self.workers = workers
        self.int8 = int8

    def why_not(self) -> str | None:
        missing = any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime"))
        return "pip install 'spnet[onnx]'" if missing else None

    def differs(self, threads: int, batch: int) -> bool:
        return not self.workers or (threads > 1 and batch > 1)

    def open(self, case: Case) -> Bind:
        from spnet.inference.runtimes.onnx.executor import StaticExecutor
        from spnet.inference.runtimes.onnx.library import open_session
        from spnet.inference.runtimes.onnx.network import path_model

        model = case.int8 if self.int8 else path_model(case.net).SerializeToString()
        assert model is not None, "an int8 rival is given the network in QDQ form"
        if self.workers:
            executor = StaticExecutor(case.net, case.threads, model=model)
            return lambda images: partial(executor.run, images)
        session = open_session(model, case.threads, spinning=case.threads > 1)

        def bind(images: np.ndarray) -> Call:
            binding = session.io_binding()
            logits = np.empty((len(images), case.net.num_classes), np.float32)
            for put, name, array in (
                (binding.bind_input, "image", images),
                (binding.bind_output, "logits", logits),
            ):
                put(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

            def call(kept: np.ndarray = images) -> np.ndarray:  # both memories live as long as the call does
                session.run_with_iobinding(binding)
                return logits

            return call

        return bind
