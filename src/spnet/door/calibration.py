"""`spnet.calibrate`."""

import torch
from torch import Tensor

from spnet.data import Dataset, Source, Split
from spnet.door.given import images_for
from spnet.errors import UserError
from spnet.inference.calibrate import calibrate as calibrate_network
from spnet.inference.calibrate import spread
from spnet.network.dynamic import DynamicNetwork
from spnet.training.finish import CALIBRATION_IMAGES


def calibrate(network: DynamicNetwork, data: str | Dataset | Source | Tensor, budget: float) -> float:
    """Shift a network's decision threshold, in place, so that its mean cost is `budget`; returns the cost reached.

    Args:
        data: whose training images are read, without labels: a name or a `Dataset`; or a `Source`, or images
            uint8 (N, C, H, W).
        budget: share of the static cost, such as 0.7.

    Raises:
        UserError: the network decides nothing, or no threshold comes within 2 % of the budget; it is then as before.

    Example:
        >>> net = spnet.load("runs/digits")
        >>> abs(spnet.calibrate(net, "digits", 0.8) - 0.8) < 0.02
        True
    """
    if not isinstance(network, DynamicNetwork):
        raise UserError(f"calibrate changes a network, such as spnet.load(...) gives; not {type(network).__name__}.")
    if isinstance(data, Tensor):
        network.check_images(data)
        if data.dtype != torch.uint8:
            raise UserError(f"images to calibrate on are uint8 (0 to 255), not {data.dtype}.")
        part: Source = Split(data, torch.zeros(len(data), dtype=torch.int64, device=data.device))
    else:
        found = images_for(data, network, None)
        part = spread(found.train if isinstance(found, Dataset) else found, CALIBRATION_IMAGES).in_memory()
    return calibrate_network(network, part.to(network.mean.device), budget)
