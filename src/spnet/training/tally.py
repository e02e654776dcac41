"""What an epoch's steps add up to, kept on the device until the epoch ends."""

from typing import Any

import torch
from torch import Tensor

from spnet.errors import DivergedError
from spnet.methods.base import Losses

REMEDY = "The last good state is kept; lower --lr, or set --clip-value 0.5."
NEVER = torch.iinfo(torch.int64).max


class Tally:
    """Sums over steps of each loss term, watched value and training figure, and the first step each was not finite.

    `add` works on the device alone and changes nothing but tensors, so that it can be part of a captured step; `count`
    is the host's share.

    Attributes:
        steps, images: what was counted.
        rate: learning rate of the last step.
        shares: each term's share of the gradient in the last step.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.images = 0
        self.rate = 0.0
        self.shares: dict[str, Tensor] = {}
        self._names: tuple[str, ...] = ()

    def count(self, images: int, rate: float) -> None:
        self.steps += 1
        self.images += images
        self.rate = rate

    def add(self, losses: Losses, labels: Tensor) -> None:
        trace = losses.trace
        values = {f"losses/{name}": term.detach() for name, term in losses.terms.items()}
        values |= {f"watched/{name}": value.detach() for name, value in losses.watched.items()}
        values["loss"] = losses.total.detach()
        values["train_accuracy"] = 100.0 * (trace.logits.detach().argmax(1) == labels).float().mean()
        values["train_macs_mean"] = trace.macs.double().mean()
        if not self._names:
            self._begin(tuple(values), labels.device)
        if self._names != tuple(values):
            raise ValueError(f"an objective has the same terms in every step of an epoch, not {sorted(values)} anew.")
        # Added to a zero on the device: a value that a degenerate network leaves on the host is not copied over.
        value_V = torch.stack([self._zero + value for value in values.values()])
        self._sum_V += value_V
        bad_V = torch.where(value_V.isfinite(), NEVER, self._step)
        self._first_bad_V.copy_(torch.minimum(self._first_bad_V, bad_V))
        self._step += 1

    def _begin(self, names: tuple[str, ...], device: torch.device) -> None:
        self._names = names
        self._zero = torch.zeros((), dtype=torch.float64, device=device)
        self._sum_V = torch.zeros(len(names), dtype=torch.float64, device=device)
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._first_bad_V = torch.full((len(names),), NEVER, device=device)

    def check(self) -> None:
        """Raise `DivergedError` naming the first term that was not finite."""
        if not self._names:
            return
        firsts = zip(self._names, self._first_bad_V.tolist(), strict=True)
        name, step = min(firsts, key=lambda item: (item[1], item[0] == "loss"))
        if step != NEVER:
            raise DivergedError(f"'{name.split('/')[-1]}' was not finite at step {step + 1} of this epoch. {REMEDY}")

    def means(self) -> dict[str, Any]:
        """Mean over the steps of everything added, loss terms and watched values in groups of their own."""
        nested: dict[str, Any] = {"losses": {}, "watched": {}}
        for name, total in zip(self._names, self._sum_V.tolist(), strict=True):
            group, _, key = name.rpartition("/")
            (nested[group] if group else nested)[key] = total / self.steps
        return {**nested, "gradient_share": {name: share.item() for name, share in self.shares.items()}}
