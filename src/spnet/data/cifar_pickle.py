"""Read the pickled batches of CIFAR's Python archive without running anything a pickle asks for.

A pickle may name any function to call. Here only the few names that a numpy array needs are known, and each stands
for a harmless function of this file that collects shape and bytes; every other name is refused.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from spnet.data.reason import reason
from spnet.errors import UserError


def unpickle(data: bytes, name: str) -> dict[str, Any]:
    """The dictionary in a pickled batch; arrays are uint8. `name` stands for the file in errors.

    UserError if it is broken, asks for anything but bytes arrays and plain containers, or is not a dictionary.
    """
    try:
        content = _Restricted(io.BytesIO(data), encoding="bytes").load()
        items = content.items() if isinstance(content, dict) else ()
        return {_text(key): value.array() if isinstance(value, _Array) else value for key, value in items}
    except UserError as error:
        raise UserError(f"'{name}' {error}; fetch it again") from None
    except Exception as error:  # a broken pickle raises almost anything
        raise UserError(f"'{name}' is not a readable pickle ({reason(error)}); fetch it again") from error


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise UserError(f"is refused: it asks to run {module}.{name}, which image data never needs")
        return _KNOWN[module, name]


class _Stand:
    """Stands for a function or class. A pickle may call it, but not change it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UserError("is refused: it asks to change a function")


class _Array:
    """Stands for an array while it is being unpickled."""

    def __init__(self, *_: Any) -> None:
        self.shape: tuple[int, ...] = ()
        self.data, self.by_column = b"", False

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, dtype, self.by_column, self.data = state
        if dtype.kind not in ("u1", "|u1"):
            raise UserError(f"holds an array of type {dtype.kind}, where CIFAR has bytes (u1)")

    def array(self) -> np.ndarray:
        return np.frombuffer(self.data, dtype=np.uint8).reshape(self.shape, order="F" if self.by_column else "C")


class _Dtype:
    """Stands for a numpy dtype: only its name is kept."""

    def __init__(self, kind: Any, *_: Any) -> None:
        self.kind = _text(kind)

    def __setstate__(self, state: Any) -> None:
        pass


def _ndarray(*_: Any) -> None:
    """The class numpy.ndarray is passed along in a pickle, never called."""
    raise UserError("is refused: it builds an array in an unusual way")


def _from_buffer(data: Any, dtype: _Dtype, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", bytes(data)))
    return array


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin-1")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


_KNOWN: dict[tuple[str, str], _Stand] = {
    ("numpy", "ndarray"): _Stand(_ndarray),
    ("numpy", "dtype"): _Stand(_Dtype),
    ("_codecs", "encode"): _Stand(_encode),  # how Python 3 writes bytes into an old pickle protocol
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Stand(_Array) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Stand(_from_buffer) for core in ("core", "_core")},
}
