"""Vision transformers of torchvision (ViT) and timm (ViT, DeiT): attention and MLP of a layer are two blocks.

Routers read the mean over tokens: before the first layer the class token has seen nothing of the image.
"""

import torch
from torch import Tensor, nn

from spnet.backbones.adapters.parts import GlobalMean, Parts, Unit, attributes, changed, children, flat
from spnet.backbones.adapters.registry import adapts, splits
from spnet.errors import UserError


class FirstToken(nn.Module):
    """(B, tokens, C) -> (B, 1, C), whose mean over tokens is the class token."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1]


class WithoutPrefix(nn.Module):
    """(B, tokens, C) without its first `prefix` tokens."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.prefix :]


class TorchvisionStem(nn.Module):
    """Image -> tokens, the class token first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.conv_proj, self.dropout = model.get_submodule("conv_proj"), model.get_submodule("encoder.dropout")
        self.class_token = model.get_parameter("class_token")
        self.pos_embedding = model.get_parameter("encoder.pos_embedding")

    def forward(self, image: Tensor) -> Tensor:
        patches = self.conv_proj(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(image.shape[0], -1, -1), patches], 1)
        return self.dropout(tokens + self.pos_embedding)


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` of x with itself."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@adapts("torchvision.models.vision_transformer.VisionTransformer")
def torchvision_vit(model: nn.Module) -> Parts:
    body = children(model, "encoder.layers")
    neck = [model.encoder.ln, FirstToken()]  # type: ignore[union-attr,list-item]
    return Parts([TorchvisionStem(model)], body, GlobalMean(), flat(model.heads), neck)  # type: ignore[arg-type]


@splits("torchvision.models.vision_transformer.EncoderBlock")
def torchvision_layer(layer: nn.Module) -> dict[str, Unit]:
    attention = [layer.ln_1, SelfAttention(layer.self_attention), layer.dropout]  # type: ignore[arg-type]
    return {"attention": Unit(attention), "mlp": Unit(attributes(layer, "ln_2 mlp"))}  # type: ignore[arg-type]


class TimmStem(nn.Module):
    """Image -> tokens: timm's own code, the blocks left out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        none = {name: nn.Identity() for name in ("blocks", "norm", "fc_norm", "head_drop", "head")}
        self.embed = changed(model, **none)

    def forward(self, image: Tensor) -> Tensor:
        return self.embed.forward_features(image)  # type: ignore[operator]


@adapts("timm.models.vision_transformer.VisionTransformer")
def timm_vit(model: nn.Module) -> Parts:
    if type(model).__name__ != "VisionTransformer" or model.attn_pool is not None:
        raise UserError(f"no adapter for {type(model).__name__}: only plain vision transformers with one head.")
    choose: dict[str, nn.Module] = {"token": FirstToken(), "avg": WithoutPrefix(int(model.num_prefix_tokens))}  # type: ignore[arg-type]
    if model.global_pool not in choose:
        raise UserError(f"no adapter for global_pool '{model.global_pool}': use 'token' or 'avg'.")
    neck = [model.norm, choose[model.global_pool]]  # type: ignore[index,list-item]
    head = attributes(model, "fc_norm head_drop head")
    return Parts([TimmStem(model)], children(model, "blocks"), GlobalMean(), head, neck)  # type: ignore[arg-type]


@splits("timm.models.vision_transformer.Block")
def timm_layer(layer: nn.Module) -> dict[str, Unit]:
    return {
        "attn": Unit(attributes(layer, "norm1 attn ls1 drop_path1")),
        "mlp": Unit(attributes(layer, "norm2 mlp ls2 drop_path2")),
    }
