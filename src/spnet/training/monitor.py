"""What is watched after each epoch, the same for every method: accuracy, cost, and how steady the decisions are
(protocol, 8)."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from spnet.data import Augmentation, Source
from spnet.errors import DivergedError
from spnet.inference.calibrate import spread_indices
from spnet.inference.evaluate import collect, summarise
from spnet.network.dynamic import DynamicNetwork
from spnet.network.path_statistics import always_blocks, flip_share, path_agreement
from spnet.runs.record import Figures
from spnet.training.tally import REMEDY

PROBE = 512
"""Images whose decisions are compared from epoch to epoch."""


class Monitor:
    """Args:
    split: the validation part, or a piece of the training images when there is none.
    augmentation: how a second view of the probe images is made.
    held_out: whether `split` is kept from training; decides the name of the accuracy.
    """

    def __init__(self, split: Source, augmentation: Augmentation, seed: int, held_out: bool) -> None:
        self.split = split
        self.accuracy_name = "validation_accuracy" if held_out else "probe_accuracy"
        self.previous: Tensor | None = None
        device = split.labels.device
        self.probe = spread_indices(len(split), PROBE).to(device)
        generator = torch.Generator(device=device).manual_seed(seed)
        self.second_view = split.select(self.probe).views(augmentation, generator)

    @torch.no_grad()
    def look(self, net: DynamicNetwork) -> dict[str, Any]:
        """Run the watched images by the test rule and compare with the epoch before: entries of an `EpochRow`."""
        net.eval()
        results = collect(net, self.split, stages=net.classified_stages)
        if not bool(results["confidence"].isfinite().all()):
            raise DivergedError(f"the logits of the trained network are not finite. {REMEDY}")
        figures = summarise(results, net.static_macs, net.options)
        row: dict[str, Any] = {field.name: getattr(figures, field.name) for field in fields(Figures)}
        row[self.accuracy_name] = figures.accuracy
        decisions = results["decisions"][self.probe]
        gated = list(net.gated_indices)
        if gated:
            # Blocks without a router decide nothing: counted, they would make a method look steadier than it is.
            own, before = decisions[:, gated], self.previous
            if before is not None:
                row["flips"] = float(flip_share(before[:, gated], own))
            second = torch.cat([net(part).decisions for part in self.second_view.split(256)])
            row["path_agreement"] = float(path_agreement(own, second[:, gated]))
            always_run, always_skipped = always_blocks(results["decisions"][:, gated])
            row["always_run"] = tuple(gated[i] for i in always_run)
            row["always_skipped"] = tuple(gated[i] for i in always_skipped)
        self.previous = decisions
        return row
