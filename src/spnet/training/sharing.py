"""How processes share a training step.

Each passes its own neighbours of the batch through the network (`spnet.shard`). What the network gives is put together
as it leaves the network, so that an objective sees the trace and the labels of the whole batch and no loss knows of
processes: rates, pairs, sums over a batch and queues are those of one process. DDP averages the gradients. The price: a
pass sends its trace (about one number a channel and block for each image), and every process works out all losses. What
a network says and no loss reads gets a gradient of zero, where one process gives it none: weight decay reaches it.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spnet.errors import UserError
from spnet.methods.base import Batch, Losses, Objective, Phase, Step
from spnet.network.dynamic import DynamicNetwork
from spnet.network.trace import Trace
from spnet.shard import Shard, ShardGenerator
from spnet.training.batch_norm import OverTheWholeBatch
from spnet.training.distributed import Place
from spnet.training.gather import gathered, mean_over_processes, take_from_first, whole_trace


class Sharing(Protocol):
    """`Alone` or `Shared`."""

    @property
    def part(self) -> tuple[int, int]:
        """(which process this is, of how many)."""
        ...

    def generator(self, device: torch.device) -> torch.Generator:
        """Of random numbers that belong to images."""
        ...

    def batch(self, pixels: Tensor, labels: Tensor, copies: int) -> Batch:
        """What an objective gets, from the images and labels that this process has."""
        ...

    def objective(self, net: DynamicNetwork, phase: Phase) -> Callable[[Batch, Step], Losses]:
        """The phase's, for this network, some of whose parameters the phase has frozen."""
        ...

    def backward(self, loss: Tensor, net: DynamicNetwork) -> None:
        """Give every trainable parameter the gradient of the whole batch."""
        ...

    def mean(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Gradients of the whole batch, of those that this process has worked out."""
        ...

    def passes(self, net: DynamicNetwork, state: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Around an epoch: what the passes of the network, and of copies of it in a method's state, need."""
        ...


class Alone:
    """One process: everything is as it is."""

    part = (0, 1)

    def generator(self, device: torch.device) -> torch.Generator:
        return torch.Generator(device=device)

    def batch(self, pixels: Tensor, labels: Tensor, copies: int) -> Batch:
        return Batch(pixels, labels, copies)

    def objective(self, net: DynamicNetwork, phase: Phase) -> Callable[[Batch, Step], Losses]:
        return lambda batch, step: phase.objective(net, batch, step)

    def backward(self, loss: Tensor, net: DynamicNetwork) -> None:
        loss.backward()

    def mean(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return gradients

    def passes(self, net: DynamicNetwork, state: nn.Module) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class Shared:
    """Args:
    shard: the images of this process.
    sync_batch_norm: False leaves a batch norm to the images of its process.
    """

    def __init__(self, shard: Shard, sync_batch_norm: bool = True) -> None:
        self.shard = shard
        self.sync_batch_norm = sync_batch_norm

    @property
    def part(self) -> tuple[int, int]:
        return self.shard.rank, self.shard.processes

    def generator(self, device: torch.device) -> torch.Generator:
        generator = ShardGenerator(device=device)
        generator.shard = self.shard
        return generator

    def batch(self, pixels: Tensor, labels: Tensor, copies: int) -> Batch:
        return Batch(pixels, gathered(labels, self.shard), copies, mine=self.shard.of)

    def objective(self, net: DynamicNetwork, phase: Phase) -> Callable[[Batch, Step], Losses]:
        """Made anew each epoch, as on a resume: DDP sums the first step's gradients in another order than the later
        ones', and with three processes or more the order shows in the last bits."""
        return DistributedDataParallel(_Objective(net, phase.objective))

    def backward(self, loss: Tensor, net: DynamicNetwork) -> None:
        loss.backward()
        idle = [name for name, value in net.named_parameters() if value.requires_grad and value.grad is None]
        if idle:
            raise UserError(
                f"'{idle[0]}' takes no part in what this network says of images, which several processes cannot share: "
                "train on one device, or take it out of the network."
            )

    def mean(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return mean_over_processes(gradients)

    @contextlib.contextmanager
    def passes(self, net: DynamicNetwork, state: nn.Module) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self.sync_batch_norm:
                stack.enter_context(OverTheWholeBatch())
            for module in (*net.modules(), *state.modules()):
                if isinstance(module, DynamicNetwork):
                    hook = module.register_forward_hook(self._put_together)
                    stack.callback(hook.remove)
            take_from_first([*state.parameters(), *state.buffers()])
            yield

    def _put_together(self, module: nn.Module, given: object, trace: Any) -> Trace:
        return whole_trace(trace, self.shard)


class _Objective(nn.Module):
    """An objective with its network inside, as DDP takes it: one forward pass a step, however often it asks the
    network."""

    def __init__(self, net: DynamicNetwork, objective: Objective) -> None:
        super().__init__()
        self.net = net
        self.objective = objective

    def forward(self, batch: Batch, step: Step) -> Losses:
        return self.objective(self.net, batch, step)


ALONE = Alone()


def sharing_of(place: Place, batch_size: int, sync_batch_norm: bool) -> Sharing:
    """How the processes of a run share batches of `batch_size` images."""
    if place.world_size == 1:
        return ALONE
    return Shared(Shard(batch_size, place.rank, place.world_size), sync_batch_norm)
