"""Settings: frozen dataclasses whose fields carry their help text, filled from keywords, flags or JSON.

One flat name space: a setting's name is the keyword of `create_model`, the command-line flag (with dashes) and the key
in `config.json`.
"""

import dataclasses
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from spnet.errors import UserError, did_you_mean

T = TypeVar("T")


def setting(default: Any, help: str, *, at_most: float | None = None) -> Any:
    """A dataclass field with a default and one line of help; `at_most`: beyond it the number is taken for a slip."""
    return dataclasses.field(default=default, metadata={"help": help, "at_most": at_most})


def names(config: type) -> list[str]:
    return [f.name for f in dataclasses.fields(config)]


def fill(config: type[T], values: Mapping[str, Any]) -> T:
    """Build `config` from those of `values` that it knows, converting JSON lists to tuples and checking types."""
    hints = get_type_hints(config)
    known = {name: convert(name, hints[name], values[name]) for name in names(config) if name in values}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        limit = field.metadata.get("at_most")
        if limit is not None and known.get(field.name, 0) > limit:
            raise UserError(f"setting '{field.name}' is at most {limit}, not {shown(known[field.name])}.")
    return config(**known)


def refuse_unknown(values: Iterable[str], configs: Iterable[type]) -> None:
    """Raise `UserError` for a name that none of the configs has."""
    known = [name for config in configs for name in names(config)]
    for name in values:
        if name not in known:
            raise UserError(f"unknown setting '{name}'.{did_you_mean(name, known)}")


def convert(name: str, hint: Any, value: Any) -> Any:
    """Bring a value (from a keyword, JSON or a flag's text) to the type a field declares; `UserError` where it
    cannot."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        hint = next(part for part in get_args(hint) if part is not type(None))
        return convert(name, hint, value)
    if origin is tuple:
        if isinstance(value, str):
            value = [part for part in value.split(",") if part]
        if isinstance(value, (int, float)):
            value = [value]
        if not isinstance(value, (list, tuple)):
            raise UserError(f"setting '{name}' wants numbers separated by commas, not {shown(value)}.")
        return tuple(convert(name, get_args(hint)[0], part) for part in value)
    try:
        if hint is bool:
            return _boolean(value)
        if hint is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        if hint is float and not math.isfinite(float(value)):
            raise ValueError
        if hint in (int, float, str) and not (hint is not str and isinstance(value, bool)):
            return hint(value)
    except (TypeError, ValueError, OverflowError):
        pass
    else:
        if not isinstance(value, bool):
            return value
    raise UserError(f"setting '{name}' wants {_words(hint)}, not {shown(value)}.")


def shown(value: Any) -> str:
    """A value as a message quotes it: what somebody wrote by mistake may be a megabyte."""
    text = value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else _plain(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return repr(text) if isinstance(value, str) else text


def _plain(value: Any) -> str:
    try:
        return repr(value)
    except (RecursionError, ValueError):  # nested without end, or a number of thousands of digits
        return f"this {type(value).__name__}"


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise ValueError(value)


def _words(hint: Any) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))
