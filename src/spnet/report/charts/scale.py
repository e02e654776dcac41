"""From values to places on the page: a linear or logarithmic scale with round ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from spnet.report.numbers import finite


@dataclass(frozen=True)
class Scale:
    """Maps `low`..`high` to `start`..`end` (in units of the drawing)."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """(value, label) at round values inside the range."""
        return _powers(self.low, self.high) if self.log else _round_steps(self.low, self.high, count)


Bounds = tuple[float | None, float | None]


def fitted(values: Iterable[float | None], start: float, end: float, *, bounds: Bounds = (None, None)) -> Scale:
    """A linear scale over the finite values, a little wider; a given bound is kept exactly."""
    known = [v for v in map(finite, values) if v is not None]
    low = min(known, default=0.0) if bounds[0] is None else bounds[0]
    high = max(known, default=1.0) if bounds[1] is None else bounds[1]
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):
        room = 0.05 * abs(low) or 1.0
        low, high = (low - room if bounds[0] is None else low), (high + room if bounds[1] is None else high)
        high = low + room if high <= low else high
    room = 0.06 * (high - low)
    low = low - room if bounds[0] is None else low
    high = high + room if bounds[1] is None else high
    return Scale(low, high, start, end)


def logarithmic(values: Iterable[float | None], start: float, end: float) -> Scale | None:
    """A scale over whole powers of ten; None where a value is not positive or all lie within a factor of 30."""
    known = [v for v in map(finite, values) if v is not None]
    if not known or min(known) <= 0 or max(known) / min(known) < 30:
        return None
    low, high = 10.0 ** math.floor(math.log10(min(known))), 10.0 ** math.ceil(math.log10(max(known)))
    return Scale(low, high, start, end, log=True)


def whole_ticks(low: int, high: int, count: int = 6) -> list[int]:
    """Whole numbers at a round distance, such as epochs; the first and the last always among them."""
    if high - low < count:
        return list(range(low, high + 1))
    step = next(s for s in _whole_steps() if (high - low) / s <= count)
    inner = [v for v in range((low // step + 1) * step, high, step) if v - low >= 0.6 * step and high - v >= 0.6 * step]
    return [low, *inner, high]


def _whole_steps() -> Iterable[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


def _round_steps(low: float, high: float, count: int) -> list[tuple[float, str]]:
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)
    decimals = max(0, -math.floor(math.log10(step)) + (1 if abs(step / power - 2.5) < 1e-9 else 0))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [round(k * step, 12) for k in range(first, last + 1)]
    if decimals > 4 and max(abs(low), abs(high)) < 0.1:
        return [(v, f"{v:.1e}") for v in values]
    return [(v, f"{v:,.{decimals}f}") for v in values]


def _powers(low: float, high: float) -> list[tuple[float, str]]:
    first, last = round(math.log10(low)), round(math.log10(high))
    step = max(1, math.ceil((last - first) / 6))
    return [(10.0**e, f"{10.0**e:g}" if -4 <= e <= 4 else f"1e{e}") for e in range(first, last + 1, step)]
