"""Digits: the embedded data set, for the first five minutes with the library and for its tests."""

from spnet.runs.config import RunConfig

DYNAMIC = {"static_share": 0.3, "target": 0.6, "budget": 0.7}
"""What a method with decisions adds."""

SETTINGS = {"epochs": 20, "batch_size": 64, "lr": 0.1, "clip_value": 0.5, "validation": 0.0, **DYNAMIC}


def spnet() -> RunConfig:
    """SP-Net on the embedded digits, minutes on two cores: `spnet train`."""
    return RunConfig(method="spnet", backbone="resnet20", data="digits", settings=SETTINGS)
