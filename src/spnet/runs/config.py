"""The full description of a run: what `config.json` holds, what names a run, what a recipe returns."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from spnet.build import method_configs, without_effect
from spnet.errors import UserError, check_share, choose
from spnet.methods import MethodConfig, Optimizer, method_class
from spnet.settings import fill, refuse_unknown, setting

NAMING = 1
"""Raised when old hashes must not be found again, because what a default does has changed."""
NAMELESS = ("compile", "capture")
"""Settings that say how a step is computed, not what it computes: no part of a run's name."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings every training has, whatever the method."""

    epochs: int = setting(60, "epochs in total, all phases together")
    batch_size: int = setting(128, "images per step")
    seed: int = setting(0, "fixes initial weights, order, augmentation and all noise")
    optimizer: str = setting("sgd", "sgd or adam")
    lr: float = setting(0.1, "peak learning rate")
    sgd_momentum: float = setting(0.9, "momentum of sgd")
    nesterov: bool = setting(False, "Nesterov momentum")
    weight_decay: float = setting(1e-4, "weight decay")
    schedule: str = setting("cosine", "multistep, cosine, onecycle or constant; per phase")
    milestones: tuple[float, ...] = setting(
        (0.43, 0.716), "shares of a phase at which multistep divides the rate by 10"
    )
    lr_warmup: float = setting(0.0, "share of a phase over which the rate rises linearly")
    clip_value: float | None = setting(None, "elementwise gradient clamp (0.5 in SP-Net's recipe)")
    subset: int = setting(0, "train on a fixed class-balanced part of this many images; 0: all")
    validation: float = setting(0.1, "share of the training images kept for choices; 0: train on all")
    augment: bool = setting(True, "random crop and flip as the data set defines them")
    flip: str = setting("auto", "mirror images: true, false, or auto: as the data set does")
    budget: float = setting(
        0.0, "after training, shift decision thresholds to this share of the static cost; 0: leave them"
    )
    more_budgets: tuple[float, ...] = setting(
        (), "further shares of the static cost to calibrate to and evaluate, for tables"
    )
    reestimate_bn: bool = setting(False, "after calibration, re-estimate batch-norm statistics under test-time paths")
    precision: str = setting("auto", "fp32, bf16 (autocast) or auto: bf16 where the processor has it and it is faster")
    channels_last: bool = setting(True, "channels_last memory format")
    compile: str = setting("", "compile the blocks with torch.compile: inductor (pays on a GPU), aot_eager; empty: no")
    capture: bool = setting(False, "replay the training step as one CUDA graph; one CUDA device, sgd")
    sync_batch_norm: bool = setting(
        True, "batch norm over the whole batch where several processes share it; false: over the images of each"
    )

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"epochs must be at least 1, not {self.epochs}.")
        if self.batch_size < 2:
            raise UserError(f"batch_size must be at least 2 (batch norm needs two images), not {self.batch_size}.")
        if self.lr <= 0 or self.weight_decay < 0:
            raise UserError("lr must be positive and weight_decay not negative.")
        if not 0 <= self.seed < 2**63 or self.subset < 0:
            raise UserError("seed and subset must not be negative, and a seed lies below 2^63.")
        if not 0 <= self.sgd_momentum < 1:
            raise UserError(f"sgd_momentum lies in [0, 1), not {self.sgd_momentum}.")
        if self.nesterov and not self.sgd_momentum:
            raise UserError("nesterov needs a momentum: set sgd_momentum, or leave it out.")
        if self.clip_value is not None and self.clip_value <= 0:
            raise UserError(f"clip_value must be positive, not {self.clip_value}.")
        if not 0 <= self.lr_warmup < 1 or not all(0 < share < 1 for share in self.milestones):
            raise UserError("lr_warmup and milestones are shares of a phase, between 0 and 1.")
        if not 0 <= self.validation < 1:
            raise UserError(f"validation lies in [0, 1), not {self.validation}.")
        for budget in filter(None, (self.budget, *self.more_budgets)):
            check_share("budget", budget, such_as=0.7)
        object.__setattr__(self, "flip", self.flip.lower())  # Python's True is the flag's true
        choose("flip", self.flip, ("auto", "true", "false"))
        choose("optimizer", self.optimizer, ("sgd", "adam"))
        choose("schedule", self.schedule, ("multistep", "cosine", "onecycle", "constant"))
        choose("precision", self.precision, ("auto", "fp32", "bf16"))
        object.__setattr__(self, "compile", "" if self.compile == "False" else self.compile)  # a switch in old files
        choose("compile", self.compile, ("", "inductor", "aot_eager"))

    def without_effect(self) -> list[str]:
        """A sentence for each setting that another one makes idle."""
        idle = {
            "milestones": (self.schedule != "multistep", f"schedule {self.schedule}"),
            "sgd_momentum": (self.optimizer == "adam", "optimizer adam"),
            "nesterov": (self.optimizer == "adam", "optimizer adam"),
            "flip": (not self.augment, "augment false"),
            "reestimate_bn": (not self.budget, "budget 0: nothing is calibrated"),
        }
        plain = TrainingConfig()
        return [
            f"setting '{name}' has no effect with {why}."
            for name, (unused, why) in idle.items()
            if unused and getattr(self, name) != getattr(plain, name)
        ]

    def main_optimizer(self) -> Optimizer:
        """The optimiser of every phase that does not bring its own."""
        return Optimizer(
            name=self.optimizer,
            lr=self.lr,
            momentum=self.sgd_momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            schedule=self.schedule,
            milestones=self.milestones,
            warmup=self.lr_warmup,
            clip_value=self.clip_value,
        )


@dataclass(frozen=True)
class RunConfig:
    """A run, complete: method, wrapper, backbone, data, and every setting that differs from its default.

    Attributes:
        data: `NAME` or `NAME:PATH`.
        settings: what was chosen, in one flat name space, as flags and config.json have it; each has the type of its
            field.
        training: every training setting. method_config: every setting of the method; wrapper_configs: of each wrapper
            around it, from inside out.
    """

    method: str = "spnet"
    wrapper: str = ""
    backbone: str = "resnet20"
    data: str = "digits"
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingConfig = field(init=False, repr=False, compare=False)
    method_config: MethodConfig = field(init=False, repr=False, compare=False)
    wrapper_configs: tuple[Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from spnet.backbones import check_backbone

        check_backbone(self.backbone)
        refuse_unknown(self.settings, self.setting_classes())
        training, inner, *outer = (fill(config, self.settings) for config in self.setting_classes())
        typed = {name: value for config in (training, inner, *outer) for name, value in vars(config).items()}
        object.__setattr__(self, "training", training)
        object.__setattr__(self, "method_config", inner)
        object.__setattr__(self, "wrapper_configs", tuple(outer))
        object.__setattr__(self, "settings", {name: typed[name] for name in self.settings})

    def setting_classes(self) -> tuple[type, ...]:
        return (TrainingConfig, *method_configs(self.method, self.wrapper))

    @property
    def parts(self) -> tuple[Any, ...]:
        """The typed settings: of the training, the method and its wrappers."""
        return (self.training, self.method_config, *self.wrapper_configs)

    @property
    def method_settings(self) -> dict[str, Any]:
        own = set(TrainingConfig.__dataclass_fields__)
        return {name: value for name, value in self.settings.items() if name not in own}

    @property
    def label(self) -> str:
        """`convnet-aig + spnet`: how tables name the method."""
        return " + ".join([self.method, *self.wrapper.split("+")]) if self.wrapper else self.method

    @property
    def routed(self) -> bool:
        """Whether the method decides anything."""
        return method_class(self.method).routed

    def resolved(self) -> dict[str, Any]:
        """Every setting with its value, defaults included."""
        values: dict[str, Any] = {}
        for config in self.parts:
            values |= asdict(config)
        return values

    def to_json(self) -> dict[str, Any]:
        names = {"method": self.method, "wrapper": self.wrapper, "backbone": self.backbone, "data": self.data}
        return {**names, "settings": json.loads(json.dumps(self.resolved()))}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "RunConfig":
        names = {name: record[name] for name in ("method", "wrapper", "backbone", "data")}
        return cls(**names, settings=record["settings"])

    def with_settings(self, **settings: Any) -> "RunConfig":
        return RunConfig(self.method, self.wrapper, self.backbone, self.data, {**self.settings, **settings})

    def changed(self) -> dict[str, Any]:
        """The settings whose value is not the default of their class."""
        values: dict[str, Any] = {}
        for config in self.parts:
            plain, own = asdict(type(config)()), asdict(config)
            values |= {name: value for name, value in own.items() if value != plain[name]}
        return values

    def without_effect(self) -> list[str]:
        """A sentence for each setting that changes nothing in this run."""
        return [*self.training.without_effect(), *without_effect(self.method, self.wrapper, self.method_settings)]

    @property
    def data_name(self) -> str:
        """The data without the place where they lie."""
        return self.data.split(":")[0]

    @property
    def hash(self) -> str:
        """Twelve hex digits that name the run: equal configs, equal names, wherever the data lie on the disk.

        Defaults are left out, so that a new setting does not rename old runs. A default may therefore never change its
        meaning without a compat note and a new `NAMING`.
        """
        data = self.data_name if self.data_name in ("digits", "cifar10", "cifar100") else self.data
        changed = {name: value for name, value in self.changed().items() if name not in NAMELESS}
        record = [NAMING, self.method, self.wrapper, self.backbone, data, changed]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]
