"""One training step, from bytes to new weights, on tensors that stay on the device.

Nothing here asks the device for a value, and from one step of an epoch to the next nothing changes but tensors: the
same step can be captured once as a CUDA graph and replayed (spnet.training.capture).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from spnet.data import normalise
from spnet.methods.base import Losses, Optimizer, Phase, Step
from spnet.network.dynamic import DynamicNetwork
from spnet.training.devices import autocast
from spnet.training.sharing import ALONE, Sharing
from spnet.training.streams import Streams
from spnet.training.tally import Tally


class TrainingStep:
    """Augmentation, losses, gradients, clamp, optimiser: called as `step(images, labels)` on a batch of the split,
    images uint8 (B, C, H, W), labels (B,), both on the device. The learning rate is set outside.

    Args:
        net, optimizer: changed in place. What the phase does not train is frozen here.
        config: where the gradient clamp is taken from.
        view: what is made of a batch's images before they are normalised (`Source.view`).
        streams: the epoch's random generators.
        epoch: epochs finished in this phase.
        sharing: how processes share the batch; images and labels are those of this one.

    Attributes:
        tally: what the steps added up to.
    """

    def __init__(
        self,
        net: DynamicNetwork,
        optimizer: torch.optim.Optimizer,
        phase: Phase,
        config: Optimizer,
        *,
        view: Callable[[Tensor], Tensor],
        streams: Streams,
        epoch: int,
        precision: str,
        sharing: Sharing = ALONE,
    ) -> None:
        self.net = net
        self.optimizer = optimizer
        self.copies = phase.copies
        self.clip_value = config.clip_value
        self.view = view
        self.streams = streams
        self.precision = precision
        self.sharing = sharing
        self.parameters = freeze(net, phase)
        self.objective = sharing.objective(net, phase)
        self.info = Step(phase, epoch, streams.student, streams.teacher)
        self.tally = Tally()
        self.mean, self.std = (tuple(values.flatten().tolist()) for values in (net.mean, net.std))
        stem = next(net.backbone.stem.parameters())
        self.channels_last = stem.is_contiguous(memory_format=torch.channels_last)

    def __call__(self, images: Tensor, labels: Tensor, *, shares: bool = False) -> None:
        """`shares` also works out each term's share of the gradient."""
        labels = labels.repeat_interleave(self.copies) if self.copies > 1 else labels
        pixels = normalise(self.view(images), self.mean, self.std, channels_last=self.channels_last)
        batch = self.sharing.batch(pixels, labels, self.copies)
        with autocast(self.precision, pixels.device):
            losses = self.objective(batch, self.info)
        self.tally.add(losses, batch.labels)
        if shares:
            self.tally.shares = gradient_shares(losses, self.parameters, self.sharing.mean)
        self.optimizer.zero_grad(set_to_none=True)
        self.sharing.backward(losses.total, self.net)
        if self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.parameters, self.clip_value)
        self.optimizer.step()


def freeze(net: DynamicNetwork, phase: Phase) -> list[nn.Parameter]:
    """Make just the phase's parameters trainable and return them.

    A module all of whose parameters are frozen goes to eval mode: frozen batch norms keep their statistics, frozen
    routers drop nothing.
    """
    net.train()
    chosen = []
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(phase.trainable(name))
        if parameter.requires_grad:
            chosen.append(parameter)
    for module in net.modules():
        inside = list(module.parameters())
        if inside and not any(p.requires_grad for p in inside):
            module.eval()
    return chosen


def gradient_shares(
    losses: Losses,
    parameters: list[nn.Parameter],
    mean: Callable[[Sequence[Tensor]], Sequence[Tensor]] = lambda gradients: gradients,
) -> dict[str, Tensor]:
    """Norm of each weighted term's gradient as a share of the sum of norms. Draws nothing, changes nothing.

    `mean`: over processes (`Sharing.mean`).
    """
    norms = {}
    for name, term in losses.terms.items():
        if not term.requires_grad:
            continue
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        there = [g for g in gradients if g is not None]
        squares = [g.float().pow(2).sum() for g in mean(there)] if there else []
        norms[name] = torch.stack(squares).sum().sqrt() if squares else term.new_zeros(())
    total = torch.stack(list(norms.values())).sum().clamp(min=1e-30) if norms else None
    return {name: (norm / total).double() for name, norm in norms.items()}
