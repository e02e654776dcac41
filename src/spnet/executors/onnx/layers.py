"""Plain layers as ONNX nodes: what stems, heads, routers and blocks are made of. Batch norms vanish into the layer
before.

A layer type is one row of `_LAYERS`; `emit_layers` walks `Sequential`s and folds.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from spnet.backbones.cifar_resnet import GlobalAveragePool, PadShortcut
from spnet.errors import UserError
from spnet.executors.onnx.graph import Graph


def numbers(tensor: Tensor) -> np.ndarray:
    """A tensor's values in float64, in which folding is done."""
    return tensor.detach().cpu().double().numpy()


def affine(norm: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """(scale, offset) of a batch norm at test; of an `Identity`, (1, 0)."""
    if isinstance(norm, nn.Identity):
        return np.ones(1), np.zeros(1)
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        raise UserError(
            f"no ONNX form for a norm of type {type(norm).__name__}: run this network with executor 'gathered'."
        )
    scale = 1 / np.sqrt(numbers(norm.running_var) + norm.eps)
    offset = -numbers(norm.running_mean) * scale
    if norm.affine:
        weight = numbers(norm.weight)
        scale, offset = scale * weight, offset * weight + numbers(norm.bias)
    return scale, offset


def folded(layer: nn.Conv2d | nn.Linear, norm: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """(weight, bias) in float64 of a convolution or linear layer with the batch norm after it folded in."""
    scale, offset = affine(norm)
    weight = numbers(layer.weight)
    bias = numbers(layer.bias) if layer.bias is not None else np.zeros(weight.shape[0])
    return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1)), bias * scale + offset


def emit_layers(g: Graph, module: nn.Module, x: str) -> str:
    """The test-time value of `module` applied to x; `UserError` for a layer without an ONNX form."""
    layers = list(_flat(module))
    position = 0
    while position < len(layers):
        layer = layers[position]
        following = layers[position + 1] if position + 1 < len(layers) else None
        norm = following if isinstance(following, nn.BatchNorm1d | nn.BatchNorm2d) else None
        if isinstance(layer, nn.Conv2d | nn.Linear):
            emit: Callable[..., str] = emit_conv if isinstance(layer, nn.Conv2d) else emit_linear
            x = emit(g, layer, x, norm or nn.Identity())
            position += 2 if norm is not None else 1
            continue
        if type(layer) not in _LAYERS:
            raise UserError(
                f"no ONNX form for a layer of type {type(layer).__name__}: run this network with executor 'gathered'."
            )
        x = _LAYERS[type(layer)](g, layer, x)
        position += 1
    return x


def emit_conv(g: Graph, conv: nn.Conv2d, x: str, norm: nn.Module) -> str:
    weight, bias = folded(conv, norm)
    padding: Any = conv.padding
    if isinstance(padding, str) or conv.padding_mode != "zeros":
        raise UserError("no ONNX form for this convolution's padding: give it in pixels, filled with zeros.")
    return g.add(
        "Conv",
        x,
        g.constant(weight),
        g.constant(bias),
        kernel_shape=list(conv.kernel_size),
        strides=list(conv.stride),
        pads=[*padding, *padding],
        dilations=list(conv.dilation),
        group=conv.groups,
    )


def emit_linear(g: Graph, linear: nn.Linear, x: str, norm: nn.Module) -> str:
    weight, bias = folded(linear, norm)
    return g.add("Gemm", x, g.constant(weight.T), g.constant(bias))


def emit_relu(g: Graph, x: str) -> str:
    return g.add("Relu", x)


def anchored(g: Graph, x: str) -> str:
    """x, said to onnxruntime in a way it computes in the blocked layout: a 1x1 pool.

    Features that come from an `If` or a gather are in the plain layout. With an anchor the residual sum happens
    inside the blocked convolution; without, it is two more passes over the features. Deviation: a node that computes
    nothing.
    """
    return g.add("AveragePool", x, kernel_shape=[1, 1], strides=[1, 1]) if g.anchor else x


def emit_pad_shortcut(g: Graph, layer: PadShortcut, x: str, channels: int) -> str:
    """Subsample (or average) and append zero channels, as one 1x1 convolution with weights 0 and 1: exact, and
    unlike Slice and Pad it does not leave the blocked layout, which would cost every later block its fused sum."""
    stride = layer.stride
    if stride > 1 and layer.average:
        x = g.add("AveragePool", x, kernel_shape=[stride] * 2, strides=[stride] * 2, ceil_mode=1)
        stride = 1
    weight = np.eye(channels + layer.extra_channels, channels)[:, :, None, None]
    return g.add("Conv", x, g.constant(weight), kernel_shape=[1, 1], strides=[stride] * 2)


def _global_pool(g: Graph, layer: nn.Module, x: str) -> str:
    if g.blocked:
        return g.add("Flatten", g.add("GlobalAveragePool", anchored(g, x)))
    return g.add("ReduceMean", x, axes=[2, 3], keepdims=0)


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _max_pool(g: Graph, layer: nn.MaxPool2d, x: str) -> str:
    pads = _pair(layer.padding) * 2
    window, stride = _pair(layer.kernel_size), _pair(layer.stride)
    return g.add("MaxPool", x, kernel_shape=window, strides=stride, pads=pads, ceil_mode=int(layer.ceil_mode))


def _average_pool(g: Graph, layer: nn.AvgPool2d, x: str) -> str:
    window, stride, pads = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding) * 2
    if any(pads) and layer.ceil_mode:
        raise UserError("no ONNX form for an average pool with both padding and ceil_mode: leave one of them out.")
    return g.add(
        "AveragePool",
        x,
        kernel_shape=window,
        strides=stride,
        pads=pads,
        ceil_mode=int(layer.ceil_mode),
        count_include_pad=int(layer.count_include_pad),
    )


_LAYERS: dict[type, Callable[[Graph, Any, str], str]] = {
    nn.ReLU: lambda g, layer, x: emit_relu(g, x),
    nn.Sigmoid: lambda g, layer, x: g.add("Sigmoid", x),
    nn.Tanh: lambda g, layer, x: g.add("Tanh", x),
    nn.Identity: lambda g, layer, x: x,
    nn.Dropout: lambda g, layer, x: x,
    nn.Flatten: lambda g, layer, x: g.add("Flatten", x, axis=layer.start_dim),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    GlobalAveragePool: _global_pool,
}


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.Sequential):
        for child in module:
            yield from _flat(child)
    else:
        yield module
