"""The rate and cost losses that every supervised method offers: their settings, and how they join a step's losses."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from spnet.backbones.base import Backbone
from spnet.errors import UserError, choose
from spnet.losses import cost_deviation, cost_deviation_of_mean, executed_blocks, execution_rates, target_rate
from spnet.methods.base import Losses, MethodConfig
from spnet.network.dynamic import DynamicNetwork
from spnet.numerics import constants
from spnet.settings import setting


@dataclass(frozen=True)
class RateConfig(MethodConfig):
    """The rate and cost losses, which every supervised method offers so that all can be brought to one budget."""

    target: float = setting(0.8, "execution rate every block is pulled to; 1: no routers, every block always runs")
    targets: tuple[float, ...] = setting((), "one target per block instead; 1: no router there, the block always runs")
    rate: float = setting(2.0, "weight of the target-rate loss")
    rate_one_sided: bool = setting(False, "penalise only rates above the target")
    rate_reduction: str = setting("mean", "target-rate loss over blocks: mean or sum")
    cost: float = setting(0.0, "weight of the loss on the number of executed blocks")
    cost_blocks: float = setting(0.0, "executed blocks per image that the cost loss aims at; 0: target x blocks")
    cost_form: str = setting("sample", "cost loss: sample (each image is held to it) or batch (only a batch's mean is)")

    def __post_init__(self) -> None:
        for value in (self.target, *self.targets):
            if not 0 <= value <= 1:
                raise UserError(f"a target rate lies between 0 and 1, not {value}.")
        choose("rate_reduction", self.rate_reduction, ("mean", "sum"))
        choose("cost_form", self.cost_form, ("sample", "batch"))

    def gated(self, backbone: Backbone) -> list[bool]:
        """Which blocks get a router: those that may be skipped and whose target is below 1."""
        blocks = with_options(backbone.options)
        if self.targets and len(self.targets) != blocks:
            raise UserError(
                f"'targets' needs one value a block: {blocks} for {backbone.name}, not {len(self.targets)}."
            )
        targets = self.target_per_block(backbone.options)
        return [may and target < 1 for may, target in zip(self.skippable(backbone), targets, strict=True)]

    def target_per_block(self, options: Sequence[int]) -> list[float]:
        """The target of every block; `targets` leaves out those with one option, which always run."""
        own = iter(self.targets or (self.target,) * with_options(options))
        return [next(own) if k > 1 else 1.0 for k in options]


def with_options(options: Sequence[int]) -> int:
    """How many blocks could be skipped: those with one option count nowhere."""
    return sum(k > 1 for k in options)


def add_rate_terms(losses: Losses, net: DynamicNetwork, config: RateConfig) -> Losses:
    """Add the target-rate and cost terms of the settings to a step's losses."""
    gates = losses.trace.gates
    if not gates:
        return losses
    gated = net.gated_indices
    costs = [net.option_costs(i) for i in gated]
    blocks = with_options(net.options)
    targets: Tensor | float = config.target
    if config.targets:
        target_N = config.target_per_block(net.options)
        targets = constants(tuple(target_N[i] for i in gated), gates[0].device)
    rates = execution_rates(gates, costs)
    value = target_rate(rates, targets, one_sided=config.rate_one_sided, reduction=config.rate_reduction)
    if config.rate_reduction == "mean":
        value = value * (len(gated) / blocks)  # the published mean is over all blocks: ungated ones dilute it
    losses.watched["rate"] = value.detach()
    if config.rate:
        losses.terms["rate"] = config.rate * value
    if config.cost:
        executed = executed_blocks(gates, costs) + (blocks - len(gated))
        goal = config.cost_blocks or config.target * blocks
        if config.cost_form == "sample":
            deviation = cost_deviation(executed, goal)
        else:
            deviation = cost_deviation_of_mean(executed.mean().unsqueeze(0), goal)
        losses.watched["cost"] = deviation.detach()
        losses.terms["cost"] = config.cost * deviation
    return losses
