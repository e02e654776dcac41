"""What is timed: the static network in its strongest forms, and the dynamic one. Each runs in a process of its own.

Every variant maps float32 images (B, C, H, W), and for dynamic ones a forced-decision bias, to arrays; building a
`Trace` is not timed, for nobody.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spnet.dynamic import DynamicNetwork
from spnet.errors import choose

Call = Callable[[np.ndarray, np.ndarray | None], Any]

STATIC = ("eager", "folded", "onnx-intra", "onnx-workers")
DYNAMIC = ("onnx", "onnx-plain")
VARIANTS = (*STATIC, "compiled", *DYNAMIC)


def rivals_for(threads: int, batch: int, compiled: bool) -> list[str]:
    """The static rivals worth running: workers differ from threads inside a session only for batches on several
    cores."""
    names = [name for name in STATIC if name != "onnx-workers" or (threads > 1 and batch > 1)]
    return names + (["compiled"] if compiled else [])


def build(name: str, net: DynamicNetwork, threads: int, batch: int, exit_confidence: float | None = None) -> Call:
    """One variant, ready to be called; own decisions of a dynamic one leave early at `exit_confidence`."""
    choose("variant", name, VARIANTS)
    torch.set_num_threads(threads)
    net.eval()
    if name in DYNAMIC:
        from spnet.executors.onnx.executor import OnnxExecutor

        layout = "plain" if name == "onnx-plain" else "blocked"
        return OnnxExecutor(net, threads, layout=layout, exit_confidence=exit_confidence).arrays
    if name.startswith("onnx"):
        from spnet.executors.onnx.executor import StaticExecutor

        executor = StaticExecutor(net, threads, workers=name == "onnx-workers")
        return lambda images, bias: executor.run(images)
    plain: Any = _Plain(net) if name == "eager" else folded(_Plain(net)).to(memory_format=torch.channels_last)
    if name == "compiled":
        plain = torch.compile(plain)

    def call(images: np.ndarray, bias: np.ndarray | None) -> torch.Tensor:
        x = torch.from_numpy(images)
        with torch.inference_mode():
            return plain(x if name == "eager" else x.contiguous(memory_format=torch.channels_last))

    return call


class _Plain(nn.Module):
    """The backbone with every block in full, and nothing else."""

    def __init__(self, net: DynamicNetwork) -> None:
        super().__init__()
        self.backbone = net.backbone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.backbone.stem(x)
        for block in self.backbone.blocks:
            x = block.run(x, len(block.macs) - 1)  # type: ignore[operator,arg-type]
        return self.backbone.head(self.backbone.pool(x))


def folded(module: nn.Module) -> nn.Module:
    """A copy with every batch norm folded into the convolution before it in the same `Sequential`."""
    module = copy.deepcopy(module).eval()
    for part in list(module.modules()):
        if isinstance(part, nn.Sequential):
            for k in range(len(part) - 1):
                first, second = part[k], part[k + 1]
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    part[k], part[k + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return module
