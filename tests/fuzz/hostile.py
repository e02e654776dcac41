"""Ways to spoil a valid file: its bytes, its JSON, its tensors. All of them are drawn by hypothesis."""

import json
import math
from copy import deepcopy
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

DEEP = "\0deep"
"""Stands for lists nested a hundred thousand times, which no writer of JSON can write."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "nan", "0.5", "é\n\x1b[2J\u202e", "\ud800", "a" * 5000, "../..", "folder:."),
    *("os:getcwd", "shutil:rmtree", "torch:manual_seed", "torchvision:x", "spnet.cli:main", ":", "a:"),
    *(0, -1, 1, 2, 3, 10**9, 10**18, -(10**18), 10**400, 0.0, -0.5, 0.5, 1e-300, 1e308, -1e308),
    *(math.nan, math.inf, -math.inf, [], {}, [None], [[]], [0.5], ["a"], {"a": 1}, [1, 2, 3], [10**9] * 3, DEEP),
)
"""What nobody writes on purpose."""


@st.composite
def spoilt_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Flipped, cut, inserted, doubled, blanked, or other bytes altogether."""
    data = bytearray(content)
    place = st.integers(0, max(0, len(content) - 1))
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(("flip", "flip", "cut", "insert", "double", "blank", "remove", "other")))
        at, length = draw(place), draw(st.integers(1, 64))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=32))
        elif kind == "double":
            data[at:at] = data[at : at + length]
        elif kind == "blank":
            data[at : at + length] = bytes(len(data[at : at + length]))
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "other" and draw(st.integers(0, 9)) == 0:
            data = bytearray(draw(st.binary(max_size=200)))
    return bytes(data)


@st.composite
def spoilt_values(draw: st.DrawFn, record: Any, values: tuple[Any, ...] = VALUES) -> Any:
    """One or two entries, anywhere inside lists and dictionaries: changed, removed, added, exchanged."""
    record = deepcopy(record)
    for _ in range(draw(st.integers(1, 2))):
        holder: Any = None
        key: Any = None
        inner = record
        while isinstance(inner, (dict, list)) and inner and (holder is None or draw(st.integers(0, 3)) > 0):
            holder = inner
            key = draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
            inner = holder[key]
        value = deepcopy(draw(st.sampled_from(values)))
        if holder is None:
            return value
        kind = draw(st.sampled_from(("change", "change", "change", "remove", "add", "exchange")))
        if kind == "remove":
            del holder[key]
        elif kind == "add":
            holder.append(value) if isinstance(holder, list) else holder.update({"more": value})
        elif kind == "exchange":
            other = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
            holder[key], holder[other] = holder[other], holder[key]
        else:
            holder[key] = value
    return record


def as_json(record: Any, indent: int | None = None) -> bytes:
    text = json.dumps(record, indent=indent)
    return text.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000).encode()


@st.composite
def spoilt_json(draw: st.DrawFn, content: bytes) -> bytes:
    """Mostly another value at some place, now and then other bytes."""
    if draw(st.integers(0, 4)) == 0:
        return draw(spoilt_bytes(content))
    return as_json(draw(spoilt_values(json.loads(content))), indent=1)  # as they are written


@st.composite
def spoilt_lines(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON, one record a line."""
    lines = content.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    kind = draw(st.sampled_from(("value", "value", "value", "bytes", "twice", "gone", "none")))
    if kind == "bytes":
        return draw(spoilt_bytes(content))
    if kind == "none":
        return b""
    changed = {"value": lambda: [as_json(draw(spoilt_values(json.loads(lines[at]))))], "twice": lambda: [lines[at]] * 2}
    lines[at : at + 1] = changed.get(kind, lambda: [])()
    return b"\n".join(lines) + b"\n"


@st.composite
def spoilt_tensor(draw: st.DrawFn, value: Tensor) -> Tensor:
    """Of another shape or type, or with values that are no numbers."""
    bad, shapes = {"nan": math.nan, "inf": math.inf, "huge": 1e300}, ("more", "flat", "none")
    kind = draw(st.sampled_from((*bad, *shapes, "half", "double", "whole", "bool", "complex")))
    if kind in bad:
        if not value.is_floating_point() or not value.numel():
            return value.double() * math.nan
        spoilt = value.to(torch.float64 if kind == "huge" else value.dtype).reshape(-1).clone()
        spoilt[draw(st.integers(0, value.numel() - 1))] = bad[kind]
        return spoilt.reshape(value.shape)
    types = {"half": torch.float16, "double": torch.float64, "whole": torch.int64, "bool": torch.bool}
    if kind in types or kind == "complex":
        return value.to(types.get(kind, torch.complex64))
    return {"more": value[None], "flat": value.reshape(-1), "none": value.new_zeros(0)}[kind]


@st.composite
def spoilt_tensors(draw: st.DrawFn, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One tensor changed, removed, added or under another's name."""
    state = dict(state)
    names = sorted(state)
    name, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    kind = draw(st.sampled_from(("change", "change", "change", "remove", "add", "exchange", "random")))
    if kind == "change":
        state[name] = draw(spoilt_tensor(state[name])).contiguous()
    elif kind == "remove":
        del state[name]
    elif kind == "add":
        state["more." + name] = state[name].clone()
    elif kind == "exchange":
        state[name], state[other] = state[other].clone(), state[name].clone()
    elif state[name].is_floating_point():
        generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        state[name] = draw(st.sampled_from((1e-30, 1.0, 1e30))) * torch.randn(state[name].shape, generator=generator)
    return state


TENSORS = (torch.zeros(()), torch.zeros(3), torch.full((2, 2), math.nan), torch.zeros(0, dtype=torch.int64))


@st.composite
def spoilt_state(draw: st.DrawFn, record: dict[str, Any]) -> dict[str, Any]:
    """A resume state: a value of another kind anywhere, or another tensor where one is."""
    if draw(st.booleans()):
        values = tuple(value for value in VALUES if value is not DEEP and value != "\ud800")
        return draw(spoilt_values(record, (*values, *TENSORS)))
    record = dict(record)
    part = draw(st.sampled_from(("net", "method", "momentum", "decisions")))
    if part in ("net", "method"):
        record[part] = draw(spoilt_tensors(record[part])) if record[part] else {"more": torch.zeros(1)}
    elif part == "momentum":
        record["optimizer"] = deepcopy(record["optimizer"])
        kept = record["optimizer"]["state"]
        kept[0]["momentum_buffer"] = draw(spoilt_tensor(kept[0]["momentum_buffer"]))
    else:
        record["previous_decisions"] = draw(spoilt_tensor(record["previous_decisions"]))
    return record
