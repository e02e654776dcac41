"""What a graph put out, as the fields of a trace: worked out when they are asked for.

Shapes: B samples, N blocks, R = sum of K_i over gated blocks.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from spnet.network.dynamic import DynamicNetwork


class Ran:
    """The fields of a `LazyTrace`.

    Args:
        outputs: logits (B, classes) and decisions (B, N); where `exits`, exit stages (B, 1) last.
        exits: samples may have left early.
        router_logits: runs the images again, for (B, R).
    """

    def __init__(
        self, net: DynamicNetwork, outputs: list[np.ndarray], exits: bool, router_logits: Callable[[], np.ndarray]
    ) -> None:
        self.net = net
        self.outputs = outputs
        self.exits = exits
        self._router_logits = router_logits

    def logits(self) -> Tensor:
        return torch.from_numpy(self.outputs[0])

    def stage_logits(self) -> tuple[Tensor, ...]:
        return (self.logits(),)

    def decisions(self) -> Tensor:
        return torch.from_numpy(self.outputs[1])

    def router_logits(self) -> tuple[Tensor, ...]:
        if self.net.router is None:
            return ()
        widths = [self.net.options[i] for i in self.net.gated_indices]
        return torch.from_numpy(self._router_logits()).split(widths, 1)

    def log_prob(self) -> Tensor:
        return torch.zeros(len(self.outputs[0]), len(self.net.gated_indices))

    def exit_stage(self) -> Tensor:
        if self.exits:
            return torch.from_numpy(self.outputs[-1]).squeeze(1)
        return torch.full((len(self.outputs[0]),), len(self.net.backbone.stages.lengths) - 1)

    def macs(self) -> Tensor:
        routed = self.net.router is not None
        return self.net.macs_of(self.decisions(), self.exit_stage(), routed=routed, heads=self.exits)


class RanInFull(Ran):
    """The same of the static network: every decision is the last option, and no router is charged."""

    def __init__(self, net: DynamicNetwork, outputs: list[np.ndarray]) -> None:
        super().__init__(net, outputs, False, lambda: np.zeros((len(outputs[0]), 0), np.float32))

    def router_logits(self) -> tuple[Tensor, ...]:
        return ()

    def decisions(self) -> Tensor:
        return (torch.tensor(self.net.options) - 1).expand(len(self.outputs[0]), -1)

    def log_prob(self) -> Tensor:
        return torch.zeros(len(self.outputs[0]), 0)

    def macs(self) -> Tensor:
        return torch.full((len(self.outputs[0]),), self.net.static_macs)
