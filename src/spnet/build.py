"""From names and settings to a method and its network.

Settings are one flat name space: those of the method and of the wrappers around it, such as SP-Net. A wrapper named as
the method goes around a default of its own: `spnet` alone is SP-Net around the `dynamic` baseline.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import Any, cast

import torch

from spnet.backbones import create_backbone, import_backbone
from spnet.backbones.base import Backbone
from spnet.errors import NoEffectWarning, UserError
from spnet.methods import Method, composition
from spnet.network.dynamic import DynamicNetwork
from spnet.network.origin import Origin
from spnet.seeds import stream_seed
from spnet.settings import fill, refuse_unknown, shown

LARGEST = (1 << 20, 4096, 8192, 8192)
"""Of num_classes, in_channels, height and width: beyond, a number is a slip, and would take the machine's memory."""


def method_configs(method: str, wrapper: str = "") -> tuple[type, ...]:
    """The settings classes of a method and its wrappers, the inner one first."""
    inner, wrappers = composition(method, wrapper)
    return (inner.Config, *(cls.Config for cls in wrappers))


def create_method(method: str, wrapper: str = "", settings: Mapping[str, Any] | None = None) -> Method:
    """Build the method object; unknown settings are a `UserError`."""
    settings = settings or {}
    refuse_unknown(settings, method_configs(method, wrapper))
    inner, wrappers = composition(method, wrapper)
    built = inner(fill(inner.Config, settings))
    for cls in wrappers:
        built = cls(fill(cls.Config, settings), inner=built)
    return built


def warn_without_effect(method: str, wrapper: str, settings: Mapping[str, Any]) -> None:
    """A `NoEffectWarning` for each of these settings that changes nothing with this method."""
    for words in without_effect(method, wrapper, settings):
        warnings.warn(words, NoEffectWarning, stacklevel=3)


def without_effect(method: str, wrapper: str, settings: Mapping[str, Any]) -> list[str]:
    """A sentence for each of these settings that differs from its default and that the method ignores."""
    chosen, _ = composition(method, wrapper)
    config = fill(chosen.Config, settings)
    return [
        f"setting '{name}' has no effect with method '{chosen.name}': leave it out."
        for name in chosen.ignored
        if getattr(config, name) != getattr(chosen.Config(), name)
    ]


def build_network(
    method: Method,
    backbone: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    seed: int | None = None,
) -> DynamicNetwork:
    """The network of a method. With a seed, backbone, router and heads are drawn from separate streams, so that
    every method starts from the same backbone."""
    num_classes, *shape = checked_sizes(num_classes, *input_shape)
    input_shape = (shape[0], shape[1], shape[2])
    with seeded(seed, "backbone"):
        plain = create_backbone(
            backbone, num_classes=num_classes, input_shape=input_shape, skip_rule=method.block_rule()
        )
    return around(method, plain, mean=mean, std=std, seed=seed)


def around(
    method: Method,
    plain: Backbone,
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    seed: int | None = None,
) -> DynamicNetwork:
    """A method's routers and heads around a backbone."""
    with seeded(seed, "router"):
        router = method.build_router(plain)
    with seeded(seed, "heads"):
        heads = method.build_heads(plain)
    return DynamicNetwork(plain, router, heads, mean, std)


def create_model(
    backbone: str,
    method: str,
    num_classes: int = 10,
    *,
    wrapper: str = "",
    in_channels: int = 3,
    image_size: int | tuple[int, int] = 32,
    seed: int | None = None,
    **config: Any,
) -> DynamicNetwork:
    """Build a freshly initialised network, called as `model(x) -> Trace`.

    Args:
        backbone: see `list_backbones()`; or `torchvision:NAME`, `timm:NAME`, `package.module:function`.
        method: see `list_methods()`.
        num_classes: width of the class logits.
        wrapper: `spnet` puts SP-Net around the method; several from inside out: `spnet+sandwich`.
        in_channels, image_size: what it will see; multiply-adds are counted for it.
        seed: fixes the initial weights.
        config: settings of the method, such as `target=0.5` or `lookahead=6`.

    Raises:
        UserError: an unknown name or setting, with the nearest known one; a size that no network can have.

    Example:
        >>> net = spnet.create_model("resnet8", "spnet", num_classes=10, target=0.5)
        >>> trace = net.eval()(torch.randn(4, 3, 32, 32))
        >>> tuple(trace.logits.shape), tuple(trace.decisions.shape)
        ((4, 10), (4, 3))
    """
    size = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    built = create_method(method, wrapper, config)
    warn_without_effect(method, wrapper, config)
    import_backbone(backbone)
    shape = cast(tuple[int, int, int], (in_channels, *size))
    net = build_network(built, backbone, num_classes=num_classes, input_shape=shape, seed=seed)
    net.origin = Origin(method, wrapper, backbone, config)
    return net


def checked_sizes(*sizes: object) -> list[int]:
    """Refuse, before anything is built, what is no size or one that no machine could hold."""
    names = ("num_classes", "in_channels", "image_size", "image_size")
    if len(sizes) != len(names):
        raise UserError(f"image_size is a whole number or (height, width), not {shown(sizes[2:])}.")
    checked = []
    for name, value, limit in zip(names, sizes, LARGEST, strict=True):
        if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= int(value) <= limit:
            raise UserError(f"{name} is a whole number from 1 to {limit}, not {shown(value)}.")
        checked.append(int(value))
    return checked


@contextmanager
def seeded(seed: int | None, *names: object) -> Iterator[None]:
    """Run a block under its own seed and leave torch's default generator as it was; None does nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, *names))
        yield
