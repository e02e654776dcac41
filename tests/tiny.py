"""Small things the tests share: images, networks with a life of their own, a plain ResNet to compare with."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spnet.data import Augmentation, Dataset, Source, Split
from spnet.methods.base import Batch, Method, Optimizer, Phase
from spnet.network.dynamic import DynamicNetwork
from spnet.training.epoch import train_epoch
from spnet.training.schedule import build_optimizer
from spnet.training.sharing import ALONE, Sharing
from spnet.training.step import freeze
from spnet.training.streams import Streams

SHAPE = (1, 8, 8)
"""(channels, height, width) of digits, which most tests see."""


def images(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Tensor:
    """Normalised float images."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def paths(net: DynamicNetwork, count: int, seed: int = 0) -> Tensor:
    """Random decisions (count, N) that the network can take."""
    generator = torch.Generator().manual_seed(seed)
    columns = [
        torch.randint(0 if gated else options - 1, options, (count,), generator=generator)
        for gated, options in zip(net.gated, net.options, strict=True)
    ]
    return torch.stack(columns, 1)


def full_path(net: DynamicNetwork) -> Tensor:
    return torch.tensor(net.options) - 1


def empty_path(net: DynamicNetwork) -> Tensor:
    """Every gated block skipped."""
    return net.cheapest_path


@torch.no_grad()
def lively(net: DynamicNetwork, seed: int = 0) -> DynamicNetwork:
    """Give a fresh network what training would: statistics that matter, routers that tell images apart."""
    generator = torch.Generator().manual_seed(seed)
    for norm in (m for m in net.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.normal_(0, 0.2, generator=generator)
        norm.running_var.uniform_(0.5, 1.5, generator=generator)
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.normal_(0, 0.2, generator=generator)
    for name, parameter in net.named_parameters():
        if name.startswith("router.") and "norm" not in name:
            parameter.normal_(0, 0.5, generator=generator)
    return net.eval()


@torch.no_grad()
def stirred(net: DynamicNetwork, *parts: nn.Module | None) -> DynamicNetwork:
    """Less than `lively`: statistics that have seen something, and a little noise on the weights of `parts`."""
    generator = torch.Generator().manual_seed(1)
    for norm in (m for m in net.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.normal_(0, 0.2, generator=generator)
        norm.running_var.uniform_(0.5, 1.5, generator=generator)
    for parameter in (p for part in parts if part is not None for p in part.parameters()):
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


def agreeing(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two tensors differ by less than `tolerance` of the larger's size."""
    a, b = a.detach(), b.detach()
    return bool((a - b).abs().max() <= tolerance * torch.maximum(a.abs().max(), b.abs().max()))


def routed_alike(net: DynamicNetwork, logits: tuple[Tensor, ...], margin: float = 1e-4) -> Tensor:
    """(B, L) True where the best option leads by more than `margin`, so that rounding cannot change the decision."""
    best = [values.float().topk(2, dim=1).values for values in logits]
    return torch.stack([top[:, 0] - top[:, 1] > margin for top in best], 1)


@torch.no_grad()
def plain_resnet(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """He et al.'s CIFAR ResNet in eval mode, written out from the weights of a `backbone.`; subsampling shortcut."""

    def conv_bn(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.0.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = state[f"{name}.1.running_mean"], state[f"{name}.1.running_var"]
        return F.batch_norm(x, mean, var, state[f"{name}.1.weight"], state[f"{name}.1.bias"])

    x = F.relu(conv_bn("backbone.stem", x))
    blocks = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("backbone.blocks."))
    for i in range(blocks):
        name = f"backbone.blocks.{i}"
        width = state[f"{name}.residual1.0.weight"].shape[0]
        stride = 2 if width != x.shape[1] else 1
        residual = conv_bn(f"{name}.residual2", F.relu(conv_bn(f"{name}.residual1", x, stride)))
        shortcut = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, width - x.shape[1]))
        x = F.relu(shortcut + residual)
    return F.linear(x.mean((2, 3)), state["backbone.head.weight"], state["backbone.head.bias"])


def part(dataset: Dataset, train: int, test: int) -> Dataset:
    """The first images of a data set under the same name."""

    def first(split: Source, count: int) -> Source:
        return split.select(range(count))

    return replace(dataset, train=first(dataset.train, train), test=first(dataset.test, test))


def small_batch(count: int = 6) -> Batch:
    """Random images and labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, *SHAPE, generator=generator)
    return Batch(x, torch.randint(10, (count,), generator=generator))


def phase_named(method: Method, name: str, epochs: int = 20) -> Phase:
    return next(phase for phase in method.phases(epochs) if phase.name == name)


def two_steps(net: DynamicNetwork, phase: Phase, batch: int = 4, sharing: Sharing = ALONE) -> None:
    """Two optimisation steps, as the training loop takes them."""
    split = Split(
        torch.randint(0, 256, (2 * batch, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        torch.arange(2 * batch) % 10,
    )
    if phase.on_start is not None:
        phase.on_start(net)
    config = Optimizer(lr=0.05)
    train_epoch(
        net,
        build_optimizer(config, freeze(net, phase)),
        phase,
        config,
        split,
        batch_size=batch,
        augmentation=Augmentation(1, False),
        streams=Streams(0, 0, torch.device("cpu"), sharing),
        epoch_in_phase=0,
        precision="fp32",
        sharing=sharing,
    )


def in_a_forked_child(answer: Callable[[], object]) -> Any:
    """What a forked child of this process answers; an error where it hangs or fails."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def run() -> None:
        signal.alarm(60)  # a child that waits for threads it does not have must not hang the tests
        theirs.send(answer())

    child = context.Process(target=run)
    child.start()
    theirs.close()
    assert ours.poll(60), "the child hangs"
    found = ours.recv()
    child.join(30)
    assert child.exitcode == 0 and os.getpid() != child.pid
    return found
