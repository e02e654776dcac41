"""Inverted bottlenecks: EfficientNet (Lite, V2 ...), MobileNetV2 and V3 of torchvision and timm. A block that changes
width or resolution has no shortcut and always runs; the others have no tail, so that their skip is the identity."""

from torch import nn

from spnet.backbones.adapters.parts import GlobalMean, Parts, Unit, Unpool, attributes, changed, children, flat, pooled
from spnet.backbones.adapters.registry import adapts, splits

NO_SHORTCUT = "no shortcut: it changes width or resolution"


@adapts(
    "torchvision.models.efficientnet.EfficientNet",
    "torchvision.models.mobilenetv3.MobileNetV3",
    "torchvision.models.mobilenetv2.MobileNetV2",
)
def torchvision_mobile(model: nn.Module) -> Parts:
    """First and last of `features` are convolutions; EfficientNet's stages are `Sequential`s of blocks."""
    names = [name for name, _ in children(model, "features")]
    body = []
    for name in names[1:-1]:
        module = model.get_submodule(name)
        body += children(model, name) if type(module) is nn.Sequential else [(name, module)]
    stem, neck = model.get_submodule(names[0]), model.get_submodule(names[-1])
    pool = pooled(model.avgpool) if hasattr(model, "avgpool") else GlobalMean()  # type: ignore[arg-type]
    return Parts([stem], body, pool, flat(model.classifier), [neck])  # type: ignore[arg-type]


@splits(
    "torchvision.models.efficientnet.MBConv",
    "torchvision.models.efficientnet.FusedMBConv",
    "torchvision.models.mobilenetv3.InvertedResidual",
    "torchvision.models.mobilenetv2.InvertedResidual",
)
def torchvision_block(block: nn.Module) -> Unit | str:
    if not block.use_res_connect:
        return NO_SHORTCUT
    inner = "conv" if hasattr(block, "conv") else "block"
    depth = "stochastic_depth" if hasattr(block, "stochastic_depth") else ""
    return Unit(attributes(block, f"{inner} {depth}"))


@adapts("timm.models.efficientnet.EfficientNet")
def timm_efficientnet(model: nn.Module) -> Parts:
    head = [nn.Dropout(float(model.drop_rate)), model.classifier]  # type: ignore[arg-type]
    neck = attributes(model, "conv_head bn2")
    return Parts(attributes(model, "conv_stem bn1"), _timm_body(model), model.global_pool, head, neck)  # type: ignore[arg-type]


@adapts("timm.models.mobilenetv3.MobileNetV3")
def timm_mobilenetv3(model: nn.Module) -> Parts:
    """Its last convolution comes after the pool."""
    head = [Unpool(), *attributes(model, "conv_head norm_head act2 flatten")]
    head += [nn.Dropout(float(model.drop_rate)), model.classifier]  # type: ignore[arg-type,list-item]
    return Parts(attributes(model, "conv_stem bn1"), _timm_body(model), pooled(model.global_pool), head)  # type: ignore[arg-type]


def _timm_body(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return children(model, *(name for name, _ in children(model, "blocks")))


@splits(
    "timm.models._efficientnet_blocks.ConvBnAct",
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv",
    "timm.models._efficientnet_blocks.InvertedResidual",
    "timm.models._efficientnet_blocks.UniversalInvertedResidual",
    "timm.models._efficientnet_blocks.EdgeResidual",
)
def timm_block(block: nn.Module) -> Unit | str:
    """Without `has_skip` its own forward is the residual branch."""
    if not block.has_skip:
        return NO_SHORTCUT
    return Unit([changed(block, has_skip=False, drop_path=nn.Identity()), block.drop_path])  # type: ignore[list-item]
