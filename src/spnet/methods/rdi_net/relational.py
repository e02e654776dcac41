"""Relational router: a block's own node is mixed with what the two routers before it handed on. RDI-Net.

pool -> linear C -> C -> BN -> ReLU -> linear C -> K = the node u_l; a graph layer mixes it with its two predecessors
and maps it to 256; linear 256 -> K; dropout on the logits. The predecessors come through the state and are passed by
name, so that they cannot be mixed up: the released code hands v_{l-2} to both places.

Shapes: B samples, C channels of a block's input, K options, the same for every routed block.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spnet.errors import choose
from spnet.routers.base import Router, State, drop, gated_blocks

GRAPH_WIDTH = 256
MIX = (0.25, 0.5, 1.0)
"""Fixed weights of v_{l-2}, v_{l-1} and u_l: neither learned nor counted as parameters."""
HANDED_ON = ("decisions", "features")


def aggregate(*, second_last_BK: Tensor, last_BK: Tensor, own_BK: Tensor) -> Tensor:
    """(B, K): 0.25 v_{l-2} + 0.5 v_{l-1} + u_l, the current node's row of the graph layer; no other row is ever read.

    The three nodes share the layer's matrix, so mixing before it is the same and costs a third.
    """
    return MIX[0] * second_last_BK + MIX[1] * last_BK + MIX[2] * own_BK


class _Node(nn.Module):
    def __init__(self, width: int, options: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.fc2 = nn.Linear(width, options)
        self.graph = nn.Linear(options, GRAPH_WIDTH, bias=False)
        self.fc3 = nn.Linear(GRAPH_WIDTH, options)
        self.dropout = dropout
        for layer in (self.fc1, self.fc2, self.fc3):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.uniform_(self.graph.weight, -1 / 16, 1 / 16)
        self.macs = sum(layer.weight.numel() for layer in (self.fc1, self.fc2, self.graph, self.fc3))

    def own(self, pooled_BC: Tensor) -> Tensor:
        """u_l (B, K): what this router sees by itself."""
        return self.fc2(self.norm(self.fc1(pooled_BC)).relu())

    def decide(self, mixed_BK: Tensor, generator: torch.Generator | None) -> Tensor:
        logits_BK = self.fc3(self.graph(mixed_BK))
        if self.training and self.dropout > 0:
            return drop(logits_BK, self.dropout, generator)
        return logits_BK


class Relational(Router):
    """No opening bias: the options start at about 1 / K each. Relations cross stages and step over unrouted blocks.

    The first router stands in for both its predecessors, the second uses its one predecessor twice [released code].

    Args:
        input_widths: channels of each block's input.
        options: number of options of each block; all alike, because nodes are mixed.
        gated: which blocks have a router.
        dropout: share of the *logits* that is zeroed in training, the rest scaled up. Published as 0.4.
        handed_on: what a router passes to its successors: `decisions`, the drawn gate (released code), or `features`,
            its node u_l (the paper's abstract).
    """

    def __init__(
        self,
        input_widths: Sequence[int],
        options: Sequence[int],
        gated: Sequence[bool],
        *,
        dropout: float = 0.4,
        handed_on: str = "decisions",
    ) -> None:
        super().__init__()
        blocks = gated_blocks(gated)
        if len({options[i] for i in blocks}) > 1:
            raise ValueError(
                f"relational routers mix nodes of one size; these blocks have {sorted(set(options))} options."
            )
        self.gated = tuple(gated)
        self.handed_on = choose("handed_on", handed_on, HANDED_ON)
        self.nodes = nn.ModuleDict({str(i): _Node(input_widths[i], options[i], dropout) for i in blocks})
        self.macs = tuple(self._node(i).macs if has_router else 0 for i, has_router in enumerate(gated))

    def step(
        self, state: State, i: int, x: Tensor, pooled_BC: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """State: what the last one or two routers handed on; after this, the block's own node u_l too."""
        node = self._node(i)
        own_BK = node.own(pooled_BC)
        earlier = state or (own_BK,)
        mixed_BK = aggregate(second_last_BK=earlier[0], last_BK=earlier[-1], own_BK=own_BK)
        return node.decide(mixed_BK, dropout), (*state, own_BK)

    def told(self, state: State, i: int, gate_BK: Tensor) -> State:
        *earlier, own_BK = state
        return (*earlier, gate_BK if self.handed_on == "decisions" else own_BK)[-2:]

    def _node(self, i: int) -> _Node:
        return self.nodes[str(i)]  # type: ignore[return-value]
