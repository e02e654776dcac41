"""ConvNeXts of torchvision and timm. The downsampling between stages is a block that always runs."""

from torch import Tensor, nn

from spnet.backbones.adapters.parts import GlobalMean, Parts, Unit, Unpool, attributes, children, flat
from spnet.backbones.adapters.registry import adapts, splits


class Scaled(nn.Module):
    """branch(x) times a learned scale per channel."""

    def __init__(self, branch: nn.Module, scale: nn.Parameter) -> None:
        super().__init__()
        self.branch = branch
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.branch(x)


class TimmBranch(nn.Module):
    """What timm's block computes before the sum; its norm and MLP want channels last, or not."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.conv_dw, self.norm, self.mlp = attributes(block, "conv_dw norm mlp")
        self.gamma = block.gamma
        self.channels_first = bool(block.use_conv_mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_dw(x)
        if self.channels_first:
            x = self.mlp(self.norm(x))
        else:
            x = self.mlp(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x if self.gamma is None else x.mul(self.gamma.reshape(1, -1, 1, 1))  # type: ignore[operator]


@adapts("torchvision.models.convnext.ConvNeXt")
def torchvision_convnext(model: nn.Module) -> Parts:
    stem, *rest = model.features.named_children()  # type: ignore[union-attr]
    body = []
    for name, module in rest:  # stages and downsamplings take turns
        inner = children(model, f"features.{name}")
        blocks = any(type(child).__name__ == "CNBlock" for _, child in inner)
        body += inner if blocks else [(f"features.{name}", module)]
    return Parts([stem[1]], body, GlobalMean(), [Unpool(), *flat(model.classifier)])  # type: ignore[arg-type]


@splits("torchvision.models.convnext.CNBlock")
def torchvision_block(block: nn.Module) -> Unit:
    return Unit([Scaled(block.block, block.layer_scale), block.stochastic_depth])  # type: ignore[arg-type,list-item]


@adapts("timm.models.convnext.ConvNeXt")
def timm_convnext(model: nn.Module) -> Parts:
    body = []
    for name, stage in children(model, "stages"):
        if not isinstance(stage.downsample, nn.Identity):
            body.append((f"{name}.downsample", stage.downsample))
        body += children(model, f"{name}.blocks")
    head = [Unpool(), *attributes(model.head, "norm flatten pre_logits drop fc")]  # type: ignore[arg-type]
    if type(model.head).__name__ == "ClassifierHead":  # the norm comes before the pool
        head = attributes(model.head, "drop fc")  # type: ignore[arg-type]
    return Parts([model.stem], body, GlobalMean(), head, attributes(model, "norm_pre"))  # type: ignore[list-item]


@splits("timm.models.convnext.ConvNeXtBlock")
def timm_block(block: nn.Module) -> Unit:
    shortcut = None if isinstance(block.shortcut, nn.Identity) else block.shortcut
    return Unit([TimmBranch(block), block.drop_path], shortcut)  # type: ignore[arg-type]
