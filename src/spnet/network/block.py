"""What a block is: a unit with K options, of which one runs per sample.

Option 0 does the least (skip: identity, or what is always paid), option K - 1 is the full block. A block with one
option always runs: it has no router and no rate.

Shapes: B samples, K options of the block; features are (B, C, H, W) or (B, tokens, C).
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Block(nn.Module, ABC):
    """Abstract. `run` does exactly one option's work; `mix` computes every option and mixes them with a gate, which is
    what training needs. `mix(x, onehot(k)) == run(x, k)` for every k. Call the block itself, so that hooks fire:
    `block(x, k)` runs, `block(x, gate_BK)` mixes.

    Attributes:
        num_options: K, at least 1.
        identity_skip: option 0 returns its input unchanged, so that an executor may leave skipped samples untouched.
        macs: multiply-adds per sample of each option, shortcuts included; filled by the backbone's dry run.
    """

    num_options: int
    identity_skip: bool = False
    macs: tuple[int, ...] = ()

    @abstractmethod
    def run(self, x: Tensor, option: int) -> Tensor:
        """Option `option` for every sample of x, and no other work."""

    def mix(self, x: Tensor, gate_BK: Tensor) -> Tensor:
        """All options, mixed per sample by the gate; differentiable in both."""
        mixed = None
        for option in range(self.num_options):
            y = self.run(x, option)
            y = per_sample(gate_BK[:, option], y) * y
            mixed = y if mixed is None else mixed + y
        assert mixed is not None, "a block has at least one option"
        return mixed

    def forward(self, x: Tensor, choice: int | Tensor) -> Tensor:
        """`choice`: an option for every sample, or a gate (B, K)."""
        return self.run(x, choice) if isinstance(choice, int) else self.mix(x, choice)

    @property
    def options(self) -> tuple["Option", ...]:
        """One module a choice, features -> features, made on demand; they share the block's weights."""
        return tuple(Option(self, option) for option in range(self.num_options))


class Option(nn.Module):
    """One option of a block as a module of its own: what is exported, compiled or timed."""

    def __init__(self, block: Block, option: int) -> None:
        super().__init__()
        self.block = block
        self.option = option

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, self.option)


class PlainBlock(Block):
    """Any module as a block with one option: it always runs."""

    num_options = 1

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def run(self, x: Tensor, option: int) -> Tensor:
        return self.module(x)


class ResidualBlock(Block):
    """Skip is tail(shortcut(x)), full is tail(shortcut(x) + residual(x)).

    Args:
        shortcut: identity, or the projection that is always paid.
        residual: what a skip saves. Its work must not change x in place.
        tail: what follows the sum, an activation as a rule.
        tail_on_skip: False leaves the tail out where the block is skipped: skip is shortcut(x).
        identity_skip: None works it out: there is no shortcut module and no tail after it. With a tail it is for the
            caller to know that tail(x) == x for what arrives (a ReLU behind a ReLU; not a SiLU, not a GELU).
    """

    num_options = 2

    def __init__(
        self,
        shortcut: nn.Module,
        residual: nn.Module,
        tail: nn.Module | None = None,
        *,
        tail_on_skip: bool = True,
        identity_skip: bool | None = None,
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.residual = residual
        self.tail = tail if tail is not None else nn.Identity()
        self.tail_on_skip = tail_on_skip
        bare = isinstance(self.tail, nn.Identity) or not tail_on_skip
        self.identity_skip = isinstance(shortcut, nn.Identity) and bare if identity_skip is None else identity_skip

    def run(self, x: Tensor, option: int) -> Tensor:
        kept = self.shortcut(x)
        if option == 0:
            return self.tail(kept) if self.tail_on_skip else kept
        return self.tail(kept + self.residual(x))

    def mix(self, x: Tensor, gate_BK: Tensor) -> Tensor:
        kept, residual = self.shortcut(x), self.residual(x)
        ran = per_sample(gate_BK[:, 1], residual)
        if self.tail_on_skip:  # the gate scales the residual before the tail, so its gradient is <grad, residual>
            return self.tail(kept + ran * residual)
        return ran * self.tail(kept + residual) + per_sample(gate_BK[:, 0], kept) * kept


def per_sample(gate_B: Tensor, x: Tensor) -> Tensor:
    """A gate (B,) in x's type, shaped to scale each sample of x."""
    return gate_B.to(x.dtype).view(-1, *(1,) * (x.dim() - 1))
