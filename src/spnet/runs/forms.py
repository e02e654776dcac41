"""Records as frozen dataclasses: filled from plain JSON with every type checked, and turned into JSON again.

A file may say anything: what does not have the type that its field declares is refused by its name (`losses/path`).
What is absent or null takes the field's default; names that no field has are left alone. Numbers that are not there are
NaN, so that every figure is a float.
"""

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from spnet.files import strict

T = TypeVar("T")
LARGEST = 1e100
"""No figure reaches it; an infinite one says that there is none, and is left out where it is shown."""
ALWAYS = {"always": True}
EMPTY: dict[Any, Any] = {float: math.nan, int: 0, str: ""}
"""What stands for a null in a list or table."""


class Misfit(ValueError):
    """The entry `name` of a record is of the wrong kind."""

    def __init__(self, name: str) -> None:
        super().__init__(f"'{name}' is of the wrong kind")
        self.name = name


def always(default: Any) -> Any:
    """A field that is written even where it has its default; the others are left out of the file then."""
    return dataclasses.field(default=default, metadata=ALWAYS)


def fill(form: type[T], value: Any, *, whole: bool = False) -> T:
    """The dataclass `form` from a table as JSON gives it.

    Args:
        whole: no null inside a list or table; a field without a default has to be there in any case.

    Raises:
        Misfit: an entry is of the wrong kind, the first that is.
    """
    return _fill(form, value, "", whole)


def to_json(record: Any) -> dict[str, Any]:
    """The table that `fill` reads: fields that still have their default left out, but for those that are `always`
    there; null for NaN and infinity."""
    kept = {
        field.name: getattr(record, field.name)
        for field in dataclasses.fields(record)
        if field.metadata.get("always") or not _same(getattr(record, field.name), field.default)
    }
    return strict({name: _plain(value) for name, value in kept.items()})


def _fill(form: Any, value: Any, name: str, whole: bool) -> Any:
    if form in (Any, object):
        return value
    if value is None and not whole and form in EMPTY:
        return EMPTY[form]
    arguments = get_args(form)
    if get_origin(form) in (Union, types.UnionType):
        return None if value is None else _fill(arguments[0], value, name, whole)
    if dataclasses.is_dataclass(form):
        return _table(form, value, name, whole)
    if get_origin(form) is tuple:
        if not isinstance(value, (list, tuple)):
            raise Misfit(name)
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise Misfit(name)
        parts = zip(kinds, value, strict=True)
        return tuple(_fill(kind, part, _inside(name, i), whole) for i, (kind, part) in enumerate(parts))
    if isinstance(get_origin(form), type) and issubclass(get_origin(form), Mapping):  # type: ignore[arg-type]
        if not isinstance(value, Mapping):
            raise Misfit(name)
        return {key: _fill(arguments[1], part, _inside(name, key), whole) for key, part in value.items()}
    return _single(form, value, name, whole)


def _table(form: Any, value: Any, name: str, whole: bool) -> Any:
    if not isinstance(value, Mapping):
        raise Misfit(name)
    given = {}
    for key, (kind, needed) in _fields(form).items():
        if value.get(key) is not None:
            given[key] = _fill(kind, value[key], _inside(name, key), whole)
        elif needed:
            if type(None) not in get_args(kind) or key not in value:
                raise Misfit(_inside(name, key))
            given[key] = None
    return form(**given)


def _single(form: type, value: Any, name: str, whole: bool) -> Any:
    """A number or a text."""
    if form is int and isinstance(value, float) and not math.isfinite(value) and not whole:
        return EMPTY[int]
    kinds = (int, float) if form is float else form
    if isinstance(value, bool) or not isinstance(value, kinds) or not _holds(value):
        raise Misfit(name)
    return value


def _holds(value: Any) -> bool:
    """Whether a number is one that can be reckoned with: its square is a number too."""
    limit = 2**63 if isinstance(value, int) else LARGEST
    return not isinstance(value, (int, float)) or not limit <= abs(value) < math.inf


@cache
def _fields(form: Any) -> dict[str, tuple[Any, bool]]:
    """Type of each field, and whether it has to be there."""
    hints, missing = get_type_hints(form), dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(form)
    }


def _inside(name: str, key: object) -> str:
    return f"{name}/{key}" if name else str(key)


def _same(value: Any, default: Any) -> bool:
    return value is default or value == default or (value != value and default != default)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
