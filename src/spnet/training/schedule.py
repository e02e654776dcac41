"""Learning-rate schedules as pure functions of progress, and the optimisers they drive."""

import math
from collections.abc import Iterable

import torch
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
    if config.name == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov
    )
