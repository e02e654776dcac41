"""One epoch of training: the step, and what it adds up for the log. No host sync inside."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spnet.data import Augmentation, Split, augment, epoch_batches, normalise
from spnet.dynamic import DynamicNetwork
from spnet.errors import DivergedError
from spnet.methods.base import Batch, Losses, Optimizer, Phase, Step
from spnet.training.devices import MeanOverProcesses, autocast, average_gradients
from spnet.training.schedule import learning_rate
from spnet.training.streams import Streams

REMEDY = "The last good state is kept; lower --lr, or set --clip-value 0.5."


@dataclass
class Tally:
    """Sums over the steps of an epoch, kept on the device until it ends."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    first_bad_step: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    images: int = 0

    def add(self, losses: Losses, labels: Tensor) -> None:
        trace = losses.trace
        values = {f"losses/{name}": term.detach() for name, term in losses.terms.items()}
        values |= {f"watched/{name}": value.detach() for name, value in losses.watched.items()}
        values["loss"] = losses.total.detach()
        for name, value in values.items():
            never = torch.full((), torch.iinfo(torch.int64).max, device=value.device)
            bad = torch.where(value.isfinite(), never, self.steps)
            self.first_bad_step[name] = torch.minimum(self.first_bad_step.get(name, never), bad)
        values["train_accuracy"] = 100.0 * (trace.logits.detach().argmax(1) == labels).float().mean()
        values["train_macs_mean"] = trace.macs.double().mean()
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), dtype=torch.float64, device=value.device)) + value
        self.steps += 1
        self.images += len(labels)

    def check(self) -> None:
        """Raise `DivergedError` naming the first term that was not finite."""
        firsts = {name: int(step) for name, step in self.first_bad_step.items()}
        name, step = min(firsts.items(), key=lambda item: (item[1], item[0] == "loss"))
        if step < self.steps:
            raise DivergedError(f"'{name.split('/')[-1]}' was not finite at step {step + 1} of this epoch. {REMEDY}")

    def means(self) -> dict[str, Any]:
        means = {name: value.item() / self.steps for name, value in self.sums.items()}
        nested: dict[str, Any] = {"losses": {}, "watched": {}, "gradient_share": {}}
        for name, value in means.items():
            group, _, key = name.rpartition("/")
            (nested[group] if group else nested)[key] = value
        return nested


def check_weights(net: nn.Module) -> None:
    """Raise `DivergedError` when the epoch's last step, whose loss was still finite, ruined a weight or statistic."""
    for name, value in net.state_dict().items():
        if not bool(value.isfinite().all()):
            raise DivergedError(f"'{name}' is not finite after this epoch's last step. {REMEDY}")


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


def train_epoch(
    net: DynamicNetwork,
    optimizer: torch.optim.Optimizer,
    phase: Phase,
    optimizer_config: Optimizer,
    split: Split,
    *,
    batch_size: int,
    augmentation: Augmentation | None,
    streams: Streams,
    epoch_in_phase: int,
    precision: str,
    world_size: int = 1,
    out_of_time: Any = lambda: False,
) -> Tally | None:
    """Train one epoch in place. Returns its sums, or None when `out_of_time()` cut it short (the caller discards
    it)."""
    parameters = freeze(net, phase)
    device = net.mean.device
    per_epoch = max(1, len(split) // batch_size)
    total = per_epoch * phase.epochs
    tally = Tally()
    reduce = MeanOverProcesses(world_size)
    step_info = Step(phase, epoch_in_phase, streams.student, streams.teacher, reduce)
    mean, std = (tuple(values.flatten().tolist()) for values in (net.mean, net.std))
    channels_last = next(net.backbone.stem.parameters()).is_contiguous(memory_format=torch.channels_last)
    for index, (images, labels) in enumerate(epoch_batches(split, batch_size, streams.order)):
        rate = learning_rate(optimizer_config, (epoch_in_phase * per_epoch + index) / total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if augmentation is not None or phase.copies > 1:
            images = augment(images, augmentation or Augmentation(0, False), streams.augmentation, copies=phase.copies)
            labels = labels.repeat_interleave(phase.copies)
        pixels = normalise(images, mean, std, channels_last=channels_last)
        with autocast(precision, device):
            losses = phase.objective(net, Batch(pixels, labels, phase.copies), step_info)
        tally.add(losses, labels)
        if index == per_epoch - 1:
            shares = gradient_shares(losses, parameters)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        average_gradients(parameters, world_size)
        if optimizer_config.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, optimizer_config.clip_value)
        optimizer.step()
        if out_of_time():
            return None
    tally.sums |= {f"gradient_share/{name}": value * tally.steps for name, value in shares.items()}
    return tally


def gradient_shares(losses: Losses, parameters: list[nn.Parameter]) -> dict[str, Tensor]:
    """Norm of each weighted term's gradient as a share of the sum of norms. Draws nothing, changes nothing."""
    norms = {}
    for name, term in losses.terms.items():
        if not term.requires_grad:
            continue
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        squares = [g.float().pow(2).sum() for g in gradients if g is not None]
        norms[name] = torch.stack(squares).sum().sqrt() if squares else term.new_zeros(())
    total = torch.stack(list(norms.values())).sum().clamp(min=1e-30) if norms else None
    return {name: (norm / total).double() for name, norm in norms.items()}
