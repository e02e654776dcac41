"""RegNets of torchvision and timm. Transitions may be skipped; their projection is always paid."""

from torch import nn

from spnet.backbones.adapters.parts import Parts, Unit, attributes, children, pooled
from spnet.backbones.adapters.registry import adapts, splits


@adapts("torchvision.models.regnet.RegNet")
def torchvision_regnet(model: nn.Module) -> Parts:
    stages = [name for name, _ in children(model, "trunk_output")]
    return Parts([model.stem], children(model, *stages), pooled(model.avgpool), [model.fc])  # type: ignore[arg-type,list-item]


@splits("torchvision.models.regnet.ResBottleneckBlock")
def torchvision_block(block: nn.Module) -> Unit:
    return Unit([block.f], block.proj, block.activation)  # type: ignore[arg-type,list-item]


@adapts("timm.models.regnet.RegNet")
def timm_regnet(model: nn.Module) -> Parts:
    body = children(model, "s1", "s2", "s3", "s4")
    neck = attributes(model, "final_conv")
    head = attributes(model.head, "drop fc")  # type: ignore[arg-type]
    return Parts([model.stem], body, model.head.global_pool, head, neck)  # type: ignore[arg-type,list-item,union-attr]


@splits("timm.models.regnet.Bottleneck")
def timm_block(block: nn.Module) -> Unit | str:
    if block.downsample is None:
        return "its transition has no shortcut"
    return Unit(attributes(block, "conv1 conv2 se conv3 drop_path"), block.downsample, block.act3)  # type: ignore[arg-type]
