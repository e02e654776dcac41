"""Figure 1: how the feature map of an image changes across the network, with and without the evolution loss.

For each chosen test image two rows of pictures, one a network: the input, then the mean over channels of every block's
output. The two rows of an image share one grey scale, from the least to the 99th percentile of their maps, so that
maps can be compared along a row and across the pair. A block the image skipped is marked: its map is its input's.
"""

from pathlib import Path

import torch
from torch import Tensor

from spnet.backbones.base import Block
from spnet.inference.runtimes.masked import masked
from spnet.network.dynamic import DynamicNetwork
from spnet.report.figures import theme
from spnet.reproduction.plan import Plan
from spnet.runs.config import RunConfig

IMAGES = 4
"""Test images shown: the first of each of the first classes."""
WITH = 0.1
"""Evolution weight of the network "with": at the released 1e-4 the term is a ten-thousandth of the gradient."""


def runs(plan: Plan) -> list[RunConfig]:
    data, seed = plan.scale.datasets[0], plan.seeds[0]
    return [plan.run(data, "spnet", seed=seed, evolution=weight) for weight in (0.0, WITH)]


def networks(plan: Plan) -> list[RunConfig]:
    """Both: maps are drawn from weights, not from records."""
    return runs(plan)


@theme.styled(axes__grid=False, axes__spines__bottom=False, image__cmap="gray")
def write(plan: Plan, results: Path, folder: Path, out: Path) -> list[Path]:
    from matplotlib.figure import Figure

    from spnet import data
    from spnet.runs.open import load

    without, with_term = (load(folder / run.hash) for run in runs(plan))
    dataset = data.load(runs(plan)[0].data)
    chosen = [int((dataset.test.labels == c).nonzero()[0]) for c in range(min(IMAGES, dataset.num_classes))]
    images = dataset.test.select(chosen).images
    blocks = len(without.blocks)
    figure = Figure(figsize=(0.8 * (blocks + 1) + 1.2, 1.7 * len(chosen) + 0.5), layout="constrained")
    axes = figure.subplots(2 * len(chosen), blocks + 1, squeeze=False)
    seen = [feature_maps(net, images) for net in (without, with_term)]
    scales = [grey_scale([maps for network_maps, _ in seen for maps in network_maps], i) for i in range(len(images))]
    for network, ((maps, decisions), name) in enumerate(zip(seen, ("without", f"weight {WITH:g}"), strict=True)):
        for i, image in enumerate(images):
            least, most = scales[i]
            row = axes[2 * i + network]
            row[0].imshow(image.permute(1, 2, 0).squeeze().numpy())
            row[0].set_ylabel(f"{dataset.classes[int(dataset.test.labels[chosen[i]])]}\n{name}", fontsize=7)
            for block, cell in enumerate(row[1:]):
                cell.imshow(maps[block][i].numpy(), vmin=least, vmax=most)
                skipped = int(decisions[i, block]) == 0
                if i == 0 and network == 0:
                    cell.set_title(f"block {block + 1}", fontsize=7)
                cell.set_xlabel("skipped" if skipped else "", fontsize=6)
    for cell in axes.flat:
        cell.set_xticks([])
        cell.set_yticks([])
    figure.suptitle(
        "Mean feature map after every block, one grey scale an image\n"
        f"{plan.scale.datasets[0]}, {plan.scale.backbone}, seed {plan.seeds[0]}, "
        f"scale {plan.scale.name}",
    )
    return theme.save(out / "figure1", figure)


def grey_scale(maps: list[Tensor], image: int) -> tuple[float, float]:
    """Black and white of one image: the least value of its maps (B, H, W), whatever their sizes, and their 99th
    percentile, for single bright pixels would leave all the rest dark."""
    values = torch.cat([one[image].flatten() for one in maps])
    return float(values.min()), float(values.quantile(0.99))


@torch.no_grad()
def feature_maps(net: DynamicNetwork, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Mean over channels of each gated block's output, (B, H, W) a block, and the decisions (B, N)."""
    maps: list[Tensor] = []

    def recording(block: Block, x: Tensor, gate_BK: Tensor) -> Tensor:
        x = masked(block, x, gate_BK)
        maps.append(x.mean(1))
        return x

    trace = net.eval()(images, executor=recording)
    return maps, trace.decisions
