"""Mean, spread and paired differences over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of n values; the deviation of one value is None."""

    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        spread = f" ± {self.std:.2f}" if self.std is not None else ""
        return f"{self.mean:.2f}{spread}"


def summary(values: Sequence[float]) -> Summary:
    n = len(values)
    mean = sum(values) / n
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else None
    return Summary(mean, std, n)


@dataclass(frozen=True)
class Difference:
    """Mean paired difference and half its 95 % t interval (None for one pair)."""

    mean: float
    half: float | None
    n: int

    def __str__(self) -> str:
        interval = f" ± {self.half:.2f}" if self.half is not None else ""
        return f"{self.mean:+.2f}{interval}"


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Of values over baseline, both by seed; only seeds present in both count. None without such a seed.

    On a bare machine without SciPy the interval is left out.
    """
    seeds = sorted(set(values) & set(baseline))
    if not seeds:
        return None
    differences = summary([values[s] - baseline[s] for s in seeds])
    if differences.std is None:
        return Difference(differences.mean, None, 1)
    try:
        from scipy.stats import t
    except ImportError:
        return Difference(differences.mean, None, differences.n)

    half = float(t.ppf(0.975, differences.n - 1)) * differences.std / math.sqrt(differences.n)
    return Difference(differences.mean, half, differences.n)
