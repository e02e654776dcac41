"""ResNets of torchvision and timm (ResNeXt, Wide ResNet, SE and D variants are the same classes). Transitions may be
skipped; their projection is always paid."""

from torch import nn

from spnet.backbones.adapters.parts import Parts, Unit, attributes, children, pooled
from spnet.backbones.adapters.registry import adapts, splits

LAYERS = ("layer1", "layer2", "layer3", "layer4")


@adapts("torchvision.models.resnet.ResNet")
def torchvision_resnet(model: nn.Module) -> Parts:
    stem = attributes(model, "conv1 bn1 relu maxpool")
    return Parts(stem, children(model, *LAYERS), pooled(model.avgpool), attributes(model, "fc"))  # type: ignore[arg-type]


@splits("torchvision.models.resnet.BasicBlock")
def torchvision_basic(block: nn.Module) -> Unit:
    return Unit(attributes(block, "conv1 bn1 relu conv2 bn2"), block.downsample, block.relu)  # type: ignore[arg-type]


@splits("torchvision.models.resnet.Bottleneck")
def torchvision_bottleneck(block: nn.Module) -> Unit:
    residual = attributes(block, "conv1 bn1 relu conv2 bn2 relu conv3 bn3")
    return Unit(residual, block.downsample, block.relu)  # type: ignore[arg-type]


@adapts("timm.models.resnet.ResNet")
def timm_resnet(model: nn.Module) -> Parts:
    stem = attributes(model, "conv1 bn1 act1 maxpool")
    head = [nn.Dropout(float(model.drop_rate)), model.fc]  # type: ignore[arg-type]
    return Parts(stem, children(model, *LAYERS), model.global_pool, head)  # type: ignore[arg-type]


@splits("timm.models.resnet.BasicBlock")
def timm_basic(block: nn.Module) -> Unit:
    residual = attributes(block, "conv1 bn1 drop_block act1 aa conv2 bn2 se drop_path")
    return Unit(residual, block.downsample, block.act2)  # type: ignore[arg-type]


@splits("timm.models.resnet.Bottleneck")
def timm_bottleneck(block: nn.Module) -> Unit:
    residual = attributes(block, "conv1 bn1 act1 conv2 bn2 drop_block act2 aa conv3 bn3 se drop_path")
    return Unit(residual, block.downsample, block.act3)  # type: ignore[arg-type]
