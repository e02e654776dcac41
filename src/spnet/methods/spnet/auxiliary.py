"""The dynamic auxiliary module F^t of SP-Net: a momentum copy of a network. theta_t <- m * theta_t + (1 - m) * theta_d.

Parameters only are averaged. The copy runs in train mode with its own batch-norm statistics, dropout and noise [spnet,
hist].
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class AuxiliaryModule(nn.Module):
    """Holds the momentum copy. It starts equal to the network and never receives a gradient."""

    def __init__(self, net: nn.Module, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.net = copy.deepcopy(net)
        self.net.requires_grad_(False)

    @torch.no_grad()
    def reset(self, net: nn.Module) -> None:
        """Become a copy of `net` again, buffers included."""
        self.net.load_state_dict(net.state_dict())

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        momentum_update(self.net.parameters(), net.parameters(), self.momentum)


@torch.no_grad()
def momentum_update(averaged: Iterable[Tensor], current: Iterable[Tensor], momentum: float) -> None:
    """In place: averaged <- momentum * averaged + (1 - momentum) * current."""
    torch._foreach_lerp_(list(averaged), [p.detach() for p in current], 1.0 - momentum)
