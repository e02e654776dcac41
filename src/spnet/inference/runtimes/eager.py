"""The runtimes inside PyTorch: `DynamicNetwork.forward` with one of three ways to turn decisions into work."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from spnet.inference.runtimes import EAGER
from spnet.inference.runtimes.protocol import Images, Program, Rules, Runtime
from spnet.network.dynamic import DynamicNetwork, Executor
from spnet.network.trace import Trace


class Eager(Runtime):
    """Args:
    single, batch: how gladly `auto` takes it, for one image and for more.
    """

    def __init__(self, name: str, single: int = 0, batch: int = 0) -> None:
        self.name = name
        self.ranks = (single, batch)

    def rank(self, batch_size: int) -> int:
        return self.ranks[batch_size > 1]

    def compile(self, net: DynamicNetwork, rules: Rules, threads: int | None) -> Program:
        return EagerProgram(net, EAGER[self.name], rules, threads)


class EagerProgram:
    """The network itself, in eval mode; on its own device, with its weights as they are at each call."""

    def __init__(self, net: DynamicNetwork, executor: Executor, rules: Rules, threads: int | None = None) -> None:
        self.net = net
        self.executor = executor
        self.rules = rules
        self.threads = threads
        self.modules = tuple(net.modules())

    @torch.no_grad()
    def __call__(self, images: Images, force: Tensor | None, shift: float | None) -> Trace:
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(images)
        # A training may have switched it back: inference must not touch batch-norm statistics. Looking at flags is
        # cheap, `eval()` is not: it walks and writes all modules.
        if any(module.training for module in self.modules):
            self.net.eval()
        with torch_threads(self.threads):
            if force is not None:
                return self.net.forward_path(images, force, executor=self.executor, heads=False)
            return self.net(
                images,
                executor=self.executor,
                heads=False,
                exit_confidence=self.rules.exit_confidence,
                max_cost=self.rules.max_cost,
                decision_shift=shift,
            )

    def logits(self, images: Images, shift: float | None) -> np.ndarray:
        found = self(images, None, shift).logits
        return (found if found.element_size() >= 4 else found.float()).cpu().numpy()


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """So many torch threads inside; as before afterwards. None changes nothing."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
