"""Learning-rate schedules as pure functions of progress, and the optimisers they drive."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

from spnet.methods.base import Optimizer


def learning_rate(config: Optimizer, progress: float) -> float:
    """Rate at `progress` in [0, 1) of a phase."""
    if config.warmup and progress < config.warmup:
        return config.lr * progress / config.warmup
    if config.schedule == "cosine":
        done = (progress - config.warmup) / (1 - config.warmup)
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "onecycle":
        peak = 0.25
        return config.lr * (progress / peak if progress < peak else (1 - progress) / (1 - peak))
    if config.schedule == "multistep":
        return config.lr * 0.1 ** sum(progress >= milestone for milestone in config.milestones)
    return config.lr


def build_optimizer(config: Optimizer, parameters: Iterable[Parameter]) -> torch.optim.Optimizer:
    """On CUDA the fused form: one kernel for all parameters instead of several a group of them."""
    parameters = list(parameters)
    fused = True if parameters and all(p.is_cuda for p in parameters) else None
    if config.name == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        fused=fused,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups; a tensor (which a captured step reads) is filled where it lies."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
