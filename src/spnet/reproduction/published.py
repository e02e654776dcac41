"""The optimiser and schedule each method was published with on CIFAR (column `own` of Table 2).

Learning-rate steps are shares of the training, so that they scale with its length; epochs and images are the scale's.
The methods' own loss weights are their defaults. Sources: the released repositories; SkipNet: the paper as well.
"""

from typing import Any

_SGD = {"schedule": "multistep", "lr": 0.1, "lr_warmup": 0.0, "nesterov": False, "clip_value": None}

PUBLISHED: dict[str, dict[str, Any]] = {
    "convnet-aig": {**_SGD, "weight_decay": 5e-4, "milestones": (150 / 350, 250 / 350), "static_share": 0.0},
    "skipnet": {**_SGD, "weight_decay": 1e-4, "milestones": (0.5, 0.75), "static_share": 0.0},
    "codinet": {**_SGD, "weight_decay": 1e-4, "milestones": (250 / 320, 300 / 320), "static_share": 0.0},
    "spnet": {**_SGD, "weight_decay": 1e-4, "milestones": (150 / 349, 250 / 349), "clip_value": 0.5},
}
