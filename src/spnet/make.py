"""`make_dynamic`: a network you bring becomes a dynamic one."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spnet.backbones.adapters.assemble import adapt
from spnet.build import around, create_method, method_configs, seeded, warn_without_effect
from spnet.errors import UserError, check_count
from spnet.network.dynamic import DynamicNetwork
from spnet.network.origin import Origin
from spnet.settings import names, shown


def make_dynamic(
    model: nn.Module,
    method: str = "spnet",
    *,
    example: Tensor,
    blocks: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] = (),
    exits: str | Sequence[str] = (),
    num_classes: int | None = None,
    wrapper: str = "",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int | None = None,
    **settings: Any,
) -> DynamicNetwork:
    """Put a method's routers (and stage heads) on a network of torchvision, timm, or of your own with an adapter.

    Weights are shared with `model`, which stays usable, and so are their names: `net.backbone` saves and loads the
    state dicts of `model`. With every block run, the result computes what `model` does, to 1e-6; that is checked on
    `example`. What the network does in training only (dropout, stochastic depth) it still does.

    Args:
        method: see `list_methods()`.
        example: (B, C, H, W), normalised floats; multiply-adds are counted for its size.
        blocks: names of the blocks that may be skipped, as `find_blocks` prints them: whole ("layer3.1"), what they
            begin with ("layer3"), or with wildcards ("*.mlp"). None: all that can be.
        ignore: names of blocks that always run.
        exits: names of the stages that get a classifier, for methods with stage heads; empty: all.
        num_classes: another number than the network's own gives it a new last layer.
        wrapper: `spnet` puts SP-Net around another method.
        mean, std: per channel, of images in [0, 1]: used for uint8 images. None: timm's own, or no normalisation.
        seed: fixes the new weights.
        settings: of the method, such as `target=0.7`.

    Raises:
        UserError: an unknown network, one whose blocks are used twice or out of order, an example it does not take,
            names that match nothing, a setting the method does not have.

    Example:
        >>> model, images = torchvision.models.resnet18(num_classes=10), torch.randn(2, 3, 64, 64)
        >>> net = spnet.make_dynamic(model, example=images, target=0.7)
        >>> tuple(net(images).logits.shape)
        (2, 10)
    """
    known = [name for config in method_configs(method, wrapper) for name in names(config)]
    if exits not in (None, ()) and "exits" not in known:
        raise UserError(f"method '{method}' has no stage heads: drop exits, or put spnet around it (wrapper='spnet').")
    if not isinstance(model, nn.Module):
        raise UserError(f"make_dynamic takes a torch module, not {type(model).__name__}.")
    if not isinstance(example, Tensor) or example.ndim != 4 or not len(example):
        found = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise UserError(f"example is a tensor of images (B, C, H, W), not {found}.")
    if not example.is_floating_point() or example.layout != torch.strided or example.is_meta:
        raise UserError(f"example is a dense tensor of normalised floats, not {example.dtype} on {example.device}.")
    if num_classes is not None:
        check_count("num_classes", num_classes)
    given = {"blocks": blocks, "ignore": ignore, "exits": exits}
    chosen = {name: _texts(name, value) for name, value in given.items()}
    settings |= {name: value for name, value in chosen.items() if value}
    built = create_method(method, wrapper, settings)
    warn_without_effect(method, wrapper, settings)
    with seeded(seed, "backbone"):
        plain, _ = adapt(model, example, num_classes=num_classes, skip_rule=built.block_rule())
    channels = example.shape[1]
    known = {n: x for n, x in (getattr(model, "pretrained_cfg", None) or {}).items() if n in ("mean", "std")}
    own = {name: value for name, value in known.items() if len(value) == channels}  # timm's are of colour
    mean = _of_channels("mean", own.get("mean") if mean is None else mean, channels)
    std = _of_channels("std", own.get("std") if std is None else std, channels)
    net = around(built, plain, mean=mean, std=std, seed=seed)
    net.origin = Origin(method, wrapper, settings=settings)
    return net.to(example.device).train(model.training)


def _of_channels(name: str, value: Any, channels: int) -> tuple[float, ...] | None:
    """One finite number a channel, positive for std."""
    if value is None:
        return None
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != channels or not all(math.isfinite(x) and (name == "mean" or x > 0) for x in numbers):
        kind = "number" if name == "mean" else "number above 0"
        raise UserError(f"{name} takes a {kind} for each of the {channels} channels, not {shown(value)}.")
    return numbers


def _texts(name: str, value: str | Sequence[str] | None) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else () if value is None else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        whose = "stages" if name == "exits" else "blocks"
        raise UserError(f"{name} takes names of {whose}, such as {name}=('layer2', 'layer3'); not {shown(value)}.")
    return tuple(texts)
