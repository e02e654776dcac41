"""A plan: one experiment's scale, seeds and data, and the runs that follow from them by the common recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spnet.build import create_method, method_configs
from spnet.reproduction.scales import Scale
from spnet.runs.config import RunConfig, TrainingConfig
from spnet.settings import names

READINGS = ("path/logits/evolution", "classification/guides/evolution", "guides/evolution/cost")
"""Which weights Table 1's alpha, beta and gamma are; the supplement does not say. `guides` are path and logits."""
FITTING = READINGS[2]
"""The reading under which cost falls as gamma grows, as in the paper (measured: docs/reproduction.md)."""

WARM_UPS: dict[str, dict[str, Any]] = {
    "skipnet": {"static_share": 0.0},
    "rdi-net": {"static_share": 0.0, "rate": 2.0},
}
"""Where a method's own warm-up takes the place of the static start: SkipNet's supervised phase, RDI-Net's uniform one.
RDI-Net has no cost term of its own and takes the common target rate."""


def student_passes(run: RunConfig) -> int:
    """Passes of each training image through the student in a whole run."""
    return create_method(run.method, run.wrapper, run.method_settings).passes(run.training.epochs)


def at_equal_passes(run: RunConfig) -> RunConfig:
    """The run with as many epochs as make no more student passes than one a step would in the run's own."""
    epochs = run.training.epochs
    shorter = (run.with_settings(epochs=length) for length in range(epochs, 0, -1))
    return next(found for found in shorter if student_passes(found) <= epochs)


@dataclass(frozen=True)
class Plan:
    """Attributes:
    seeds: paired: seed s gives every method the same initial weights, order and augmentation.
    places: where data lie, by name: `{"cifar10": "cifar10:/data/cifar10"}`; left out: found as `data.load` finds it.
    reading: one of `READINGS`; for Table 1.
    command: what was typed, for the foot of each table.
    """

    scale: Scale
    seeds: tuple[int, ...]
    places: Mapping[str, str] = field(default_factory=dict)
    reading: str = FITTING
    command: str = ""

    @property
    def few(self) -> "Plan":
        """This plan with as many seeds as a long grid gets."""
        return replace(self, seeds=self.seeds[: self.scale.sweep_seeds])

    def run(
        self, data: str, method: str, wrapper: str = "", *, seed: int = 0, backbone: str = "", **changes: Any
    ) -> RunConfig:
        """One run of the common recipe: same start, order, optimiser and number of passes whatever the method."""
        settings = {**self.scale.base, **WARM_UPS.get(method, {}), **changes, "seed": seed}
        known = {name for c in (TrainingConfig, *method_configs(method, wrapper)) for name in names(c)}
        if method != "static":
            settings = {**{k: v for k, v in self.scale.dynamic.items() if k in known}, **settings}
        return RunConfig(method, wrapper, backbone or self.scale.backbone, self.places.get(data, data), settings)

    def runs(self, data: str, method: str, wrapper: str = "", **changes: Any) -> tuple[RunConfig, ...]:
        """`run` once a seed."""
        return tuple(self.run(data, method, wrapper, seed=seed, **changes) for seed in self.seeds)
