"""Capturing a training step: the launches of its thousands of small kernels are recorded once and replayed.

A ResNet-110 step is bound by launching, not by computing. A replay costs the host one call.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Record = Callable[[Callable[[], None], Sequence[torch.Generator]], Callable[[], None]]
"""(work, generators it draws from) -> a function that repeats the work on the same tensors. Recording itself may not
do the work: `cuda_graph` does not."""

WARM = 3
"""Steps taken before recording: libraries allocate their workspaces and the optimiser its state in the first."""


def cuda_graph(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    """Record `work` as a CUDA graph on the current stream, which must not be the default one."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)  # a replay draws the numbers that the work itself would have drawn
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        work()
    return graph.replay


class CapturedStep:
    """A step that is taken as it is WARM times, then recorded, then replayed. Every call is one step of the training.

    Args:
        step: `step(images, labels)`; changes nothing but tensors from call to call.
        generators: all that it draws from.
    """

    def __init__(
        self, step: Callable[[Tensor, Tensor], None], generators: Sequence[torch.Generator], record: Record = cuda_graph
    ) -> None:
        self.step = step
        self.generators = generators
        self.record = record
        self.taken = 0
        self._replay: Callable[[], None] | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        self.taken += 1
        if self.taken <= WARM:
            self.step(images, labels)
            return
        if self._replay is None:
            self.images, self.labels = images.clone(), labels.clone()
            self._replay = self.record(lambda: self.step(self.images, self.labels), self.generators)
        self.images.copy_(images)
        self.labels.copy_(labels)
        self._replay()


@contextlib.contextmanager
def capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> Iterator[None]:
    """What a captured step needs around it: learning rates as tensors, and one stream for all that is done.

    The stream is a side stream, because the default one cannot be recorded; the steps that are not replayed run on it
    too, because gradients are added up on the stream that a parameter was first used on.
    """
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
    side = torch.cuda.Stream(device) if device.type == "cuda" else None
    try:
        if side is None:
            yield
        else:
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                yield
            side.synchronize()  # the recording, and the memory it works in, goes when the epoch ends
    finally:
        for group in optimizer.param_groups:
            group["lr"] = float(group["lr"])
