"""Numbers as a reader wants them. What is missing or not finite is a dash."""

import math
from typing import Any

DASH = "\N{EN DASH}"


def finite(value: Any) -> float | None:
    """The value as a float, or None where it is missing, no number, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def fixed(value: Any, digits: int = 2, unit: str = "") -> str:
    """`97.33 %`: a fixed number of digits, thousands grouped."""
    known = finite(value)
    return DASH if known is None else f"{known:,.{digits}f}{unit}"


def percent_of(share: Any, digits: int = 1) -> str:
    """A share of one as a percentage."""
    known = finite(share)
    return DASH if known is None else f"{100 * known:.{digits}f} %"


def significant(value: Any, digits: int = 3) -> str:
    """`0.0124`, `1,230`, `4.1e-06`: a few significant digits."""
    known = finite(value)
    if known is None:
        return DASH
    if known == 0:
        return "0"
    if abs(known) < 1e-4 or abs(known) >= 1e7:
        return f"{known:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(known))))
    return f"{known:,.{decimals}f}"


def mmacs(macs: Any) -> float | None:
    """MACs in millions."""
    known = finite(macs)
    return None if known is None else known / 1e6


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; no deviation for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def standard_error(accuracy: Any, n: Any) -> float | None:
    """Binomial standard error of an accuracy in percent, in percent points."""
    share, count = finite(accuracy), finite(n)
    if share is None or not count:
        return None
    return math.sqrt(max(0.0, share * (100 - share)) / count)


def duration(seconds: Any) -> str:
    """`41 s`, `12 min 5 s`, `3 h 20 min`."""
    known = finite(seconds)
    if known is None:
        return DASH
    if known < 60:
        return f"{known:.0f} s" if known >= 10 else f"{known:.1f} s"
    whole = round(known)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
