"""Common torch operators as ONNX nodes: what `direct` can write without an exporter. One line of `WRITERS` each."""

from collections.abc import Callable
from typing import Any

from onnx import helper

from spnet.inference.runtimes.onnx.structure import Call
from spnet.inference.runtimes.onnx.writer import NotHere, Writer


def _filled(call: Call, *defaults: Any) -> list[Any]:
    """Positional arguments, those left out by their defaults; keywords are for torch.onnx."""
    if call.kwargs:
        raise NotHere
    return [*call.args, *defaults[len(call.args) - len(defaults) :]] if len(call.args) < len(defaults) else [*call.args]


def _convolution(w: Writer, call: Call) -> None:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = call.args
    if transposed or len(stride) != 2:
        raise NotHere
    inputs = [w.read(value) for value in (x, weight, bias) if value is not None]
    kernel = w.part.shapes[weight][2:]
    pads = [*padding, *padding]
    w.node(
        "Conv", inputs, call.results, kernel_shape=kernel, strides=stride, pads=pads, dilations=dilation, group=groups
    )


def _batch_norm(w: Writer, call: Call) -> None:
    x, gain, offset, mean, variance, training, _, epsilon = call.args
    if training or gain is None or offset is None:
        raise NotHere
    w.node(
        "BatchNormalization", [w.read(v) for v in (x, gain, offset, mean, variance)], call.results[0], epsilon=epsilon
    )


def _unary(op: str, **attributes: Any) -> Callable[[Writer, Call], None]:
    def write(w: Writer, call: Call) -> None:
        if len(call.args) != 1 or call.kwargs:
            raise NotHere
        w.node(op, [w.read(call.args[0])], call.results, **attributes)

    return write


def _clip(w: Writer, call: Call) -> None:
    if len(call.args) != 3 or call.kwargs or None in call.args[1:]:
        raise NotHere
    x, low, high = call.args
    w.node("Clip", [w.read(x), w.number(low), w.number(high)], call.results)


def _silu(w: Writer, call: Call) -> None:
    x = w.read(call.args[0])
    w.nodes.append(helper.make_node("Sigmoid", [x], [f"{x}_sigmoid"]))
    w.node("Mul", [x, f"{x}_sigmoid"], call.results)


def _binary(op: str) -> Callable[[Writer, Call], None]:
    def write(w: Writer, call: Call) -> None:
        if len(call.args) != 2 or call.kwargs:
            raise NotHere
        a, b = call.args
        scalar = isinstance(b, (int, float)) and not isinstance(b, bool)
        w.node(op, [w.read(a), w.number(b) if scalar else w.read(b)], call.results)

    return write


def _transpose(w: Writer, call: Call) -> None:
    (weight,) = call.args
    if weight[0] != "w":
        raise NotHere
    w.transposed[call.results] = w.read(weight)


def _linear(w: Writer, call: Call) -> None:
    *bias, x, weight = call.args
    if weight not in w.transposed or call.kwargs or len(w.part.shapes[x]) != 2:
        raise NotHere
    w.node("Gemm", [w.read(x), w.transposed[weight], *map(w.read, bias)], call.results, transB=1)


def _reduction(op: str) -> Callable[[Writer, Call], None]:
    def write(w: Writer, call: Call) -> None:
        x, dims, keep = _filled(call, None, None, False)
        axes = w.integers([w.axis(x, dim) for dim in dims])
        w.node(op, [w.read(x), axes], call.results, keepdims=int(keep))

    return write


def _max_pool(w: Writer, call: Call) -> None:
    x, kernel, stride, padding, dilation, ceil = _filled(call, None, None, (), (0, 0), (1, 1), False)
    kernel, stride, padding, dilation = (_pair(v) for v in (kernel, stride or kernel, padding, dilation))
    if any(padding) and ceil:
        raise NotHere
    pads = [*padding, *padding]
    given = {"kernel_shape": kernel, "strides": stride, "pads": pads, "dilations": dilation, "ceil_mode": int(ceil)}
    w.node("MaxPool", [w.read(x)], call.results[0], **given)


def _average_pool(w: Writer, call: Call) -> None:
    x, kernel, stride, padding, ceil, count, divisor = _filled(call, None, None, (), (0, 0), False, True, None)
    kernel, stride, padding = (_pair(v) for v in (kernel, stride or kernel, padding))
    if (any(padding) and ceil) or divisor is not None:
        raise NotHere
    given = {"kernel_shape": kernel, "strides": stride, "pads": [*padding, *padding]}
    w.node("AveragePool", [w.read(x)], call.results, **given, ceil_mode=int(ceil), count_include_pad=int(count))


def _slice(w: Writer, call: Call) -> None:
    x, dim, start, end, step = _filled(call, None, 0, None, None, 1)
    bounds = [start or 0, 2**63 - 1 if end is None else end, w.axis(x, dim), step]
    w.view(x, call.results)
    w.node("Slice", [w.read(x), *(w.integers([value]) for value in bounds)], call.results)


def _split(w: Writer, call: Call) -> None:
    x, _, dim = _filled(call, None, None, 0)
    axis = w.axis(x, dim)
    if not call.operator.startswith("aten.unsafe"):
        w.view(x, call.results)
    w.node("Split", [w.read(x), w.integers([w.part.shapes[r][axis] for r in call.results])], call.results, axis=axis)


def _pad(w: Writer, call: Call) -> None:
    x, pads, value = _filled(call, None, None, 0)
    rank = len(w.part.shapes[x])
    if value != 0 or len(pads) // 2 >= rank:
        raise NotHere
    before, after = [0] * rank, [0] * rank
    for k in range(len(pads) // 2):
        before[rank - 1 - k], after[rank - 1 - k] = pads[2 * k], pads[2 * k + 1]
    w.node("Pad", [w.read(x), w.integers([*before, *after])], call.results)


def _flatten(w: Writer, call: Call) -> None:
    x, shape = call.args
    if len(shape) != 2 or w.part.shapes[x][0] != w.batch or w.part.shapes[call.results][0] != w.batch:
        raise NotHere
    w.view(x, call.results)
    w.node("Flatten", [w.read(x)], call.results)


def _new_zeros(w: Writer, call: Call) -> None:
    x, shape = call.args
    if shape[0] != w.batch or w.part.shapes[x][0] != w.batch:
        raise NotHere
    batch = f"{call.results}_batch"
    w.nodes.append(helper.make_node("Shape", [w.read(x)], [batch], start=0, end=1))
    w.nodes.append(helper.make_node("Concat", [batch, w.integers(shape[1:])], [f"{call.results}_shape"], axis=0))
    w.node("ConstantOfShape", [f"{call.results}_shape"], call.results)


def _nothing(w: Writer, call: Call) -> None:
    """Memory that operators ask for and leave unused: whoever reads it all the same is not written here."""


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


WRITERS: dict[str, Callable[[Writer, Call], None]] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "relu": _unary("Relu"),
    "relu_": _unary("Relu"),
    "sigmoid": _unary("Sigmoid"),
    "sigmoid_": _unary("Sigmoid"),
    "tanh": _unary("Tanh"),
    "tanh_": _unary("Tanh"),
    "hardswish": _unary("HardSwish"),
    "hardswish_": _unary("HardSwish"),
    "hardsigmoid": _unary("HardSigmoid", alpha=1 / 6),
    "hardtanh": _clip,
    "hardtanh_": _clip,
    "silu": _silu,
    "silu_": _silu,
    "add.Tensor": _binary("Add"),
    "add_.Tensor": _binary("Add"),
    "mul.Tensor": _binary("Mul"),
    "div.Tensor": _binary("Div"),
    "t": _transpose,
    "addmm": _linear,
    "mm": _linear,
    "mean.dim": _reduction("ReduceMean"),
    "sum.dim_IntList": _reduction("ReduceSum"),
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _average_pool,
    "slice.Tensor": _slice,
    "split.Tensor": _split,
    "unsafe_split.Tensor": _split,
    "split_with_sizes": _split,
    "constant_pad_nd": _pad,
    "new_zeros": _new_zeros,
    "empty.memory_format": _nothing,
    "view": _flatten,
    "_unsafe_view": _flatten,
}
"""torch operator -> how it is written. An addition is one line here, and one case of the test."""
