"""Figure 3: SP-Net's router, drawn from the model itself: its layers in order, their sizes, what they cost."""

from pathlib import Path
from typing import Any

from torch import nn

from spnet.build import build_network, create_method
from spnet.report.figures import theme
from spnet.reproduction.plan import Plan
from spnet.runs.config import RunConfig


def runs(plan: Plan) -> list[RunConfig]:
    return []


def networks(plan: Plan) -> list[RunConfig]:
    return []


def layers(block: int = 0, backbone: str = "resnet20") -> tuple[list[str], int, int]:
    """One line a layer of the router before `block`, its number of parameters, its multiply-adds per image."""
    method = create_method("spnet")
    net = build_network(method, backbone, num_classes=10, input_shape=(3, 32, 32), seed=0)
    router = net.router
    assert router is not None
    mlp: Any = router.mlps[str(block)]  # type: ignore[index]
    lines = [f"global average pool -> {mlp.fc1.in_features}"]
    for name, layer in mlp.named_children():
        lines.append(_line(layer))
        if name == "norm":
            lines += ["ReLU", f"dropout {mlp.dropout:g} (training only)"]
    sampler = method.phases(10)[-1].sampler
    lines.append(f"training: {type(sampler).__name__}, tau {getattr(sampler, 'tau', 1):g}; test: arg-max")
    return lines, sum(p.numel() for p in mlp.parameters()), router.macs[block]


def _line(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        bias = ", ".join(f"{b:.1f}" for b in layer.bias.tolist()) if layer.out_features <= 3 else ""
        return f"linear {layer.in_features} -> {layer.out_features}" + (f", bias starts at ({bias})" if bias else "")
    if isinstance(layer, nn.BatchNorm1d):
        return f"batch norm {layer.num_features}"
    return type(layer).__name__


@theme.styled()
def write(plan: Plan, results: Path, folder: Path, out: Path) -> list[Path]:
    from matplotlib.figure import Figure

    lines, parameters, macs = layers(backbone=plan.scale.backbone)
    figure = Figure(figsize=(4.4, 0.62 * len(lines) + 1.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(-len(lines) - 0.4, 0.9))
    axes.text(0.5, 0.55, "features before the block", ha="center", va="center")
    for i, line in enumerate(lines):
        box = {"boxstyle": "round,pad=0.4", "facecolor": "0.94", "edgecolor": theme.INKS["soft"]}
        axes.text(0.5, -i - 0.4, line, ha="center", va="center", bbox=box)
        axes.annotate(
            "",
            (0.5, -i - 0.1),
            (0.5, -i + 0.3),
            arrowprops={"arrowstyle": "->", "color": theme.INKS["soft"]},
            annotation_clip=False,
        )
    axes.text(
        0.5,
        -len(lines) - 0.2,
        f"first block of {plan.scale.backbone}: {parameters} parameters, {macs} multiply-adds an image",
        ha="center",
        va="center",
        fontsize=8,
    )
    return theme.save(out / "figure3", figure)
