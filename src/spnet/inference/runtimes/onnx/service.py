"""onnxruntime as a runtime of `Engine`. Importing this file needs neither onnx nor onnxruntime."""

import importlib.util
from typing import Any

from spnet.errors import UserError
from spnet.inference.runtimes.protocol import Images, Program, Rules, Runtime
from spnet.network.dynamic import DynamicNetwork


class OnnxRuntime(Runtime):
    name = "onnx"

    def rank(self, batch_size: int) -> int:
        return 2

    def why_not(self, net: DynamicNetwork) -> str | None:
        if net.mean.device.type != "cpu":
            return "the onnx executor runs on the CPU: move the network there, or use executor 'gathered'."
        missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
        if missing:
            return f"executor 'onnx' needs {' and '.join(missing)}: pip install 'spnet[onnx]'."
        from spnet.inference.runtimes.onnx.network import check_form

        try:
            check_form(net)
        except UserError as error:
            return str(error)
        return None

    def quantise(self, net: DynamicNetwork, images: Images) -> Any:
        from spnet.inference.runtimes.onnx.int8 import Quantisation

        return Quantisation.of(net, images)

    def compile(self, net: DynamicNetwork, rules: Rules, threads: int | None) -> Program:
        import torch

        from spnet.inference.runtimes.onnx.executor import OnnxExecutor

        return OnnxExecutor(
            net,
            threads or torch.get_num_threads(),
            exit_confidence=rules.exit_confidence,
            max_cost=rules.max_cost,
            int8=rules.int8,
        )

    def compile_static(self, net: DynamicNetwork, threads: int | None) -> Program:
        import torch

        from spnet.inference.runtimes.onnx.executor import StaticExecutor

        return StaticExecutor(net, threads or torch.get_num_threads())
