"""Which setting of a cascade's knobs to take at a budget: read off tables, nothing is run.

Shapes: N images, M members.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from spnet.errors import UserError
from spnet.inference.calibrate import CLOSE
from spnet.inference.cascade.knobs import Ran

LEVELS = 24
"""Confidences tried of each member but one, where there are three members or more; the one closes the budget."""
EXACT = CLOSE / 4
"""How near a setting must come to be compared with others: a dearer one is worth more by that alone."""


@dataclass(frozen=True)
class Setting:
    """Of all knobs: for each member which of its `Ran`, and the confidences; mean cost and worth on the images."""

    chosen: tuple[int, ...]
    confidences: tuple[float, ...]
    cost: float
    worth: float


class Planner:
    """Finds settings in the tables of a cascade.

    Args:
        table: of each member its `Ran`, as `tables` gives them.
    """

    def __init__(self, table: Sequence[Sequence[Ran]]) -> None:
        self.table = table
        self.last = len(table) - 1

    @property
    def cheapest(self) -> Setting:
        """Everything stops at the first member, at its cheapest threshold."""
        return self.setting((0,) * len(self.table), (0.0,) * self.last)

    @property
    def dearest(self) -> Setting:
        """Everything goes on to the end, at the dearest thresholds."""
        return self.setting(tuple(len(rans) - 1 for rans in self.table), (1.0,) * self.last)

    def setting(self, chosen: Sequence[int], confidences: Sequence[float]) -> Setting:
        """With its cost and worth."""
        cost, worth = self._from(0, chosen, confidences)
        return Setting(tuple(chosen), tuple(confidences), float(cost.mean()), float(worth.mean()))

    def reaching(self, setting: Setting) -> list[np.ndarray]:
        """(N,) of each member: whether an image reaches it."""
        reached = [np.ones(len(self.table[0][0].sure), dtype=bool)]
        for rans, chosen, confidence in zip(self.table, setting.chosen, setting.confidences, strict=False):
            reached.append(reached[-1] & (rans[chosen].sure <= confidence))
        return reached

    def macs(self, setting: Setting) -> float:
        """Mean multiply-adds, whatever the unit of the cost."""
        rans = (rans[chosen] for rans, chosen in zip(self.table, setting.chosen, strict=True))
        return float(
            sum((ran.macs * reached).mean() for ran, reached in zip(rans, self.reaching(setting), strict=True))
        )

    def meet(self, budget: float) -> Setting:
        """The worthiest setting found whose mean cost is `budget`.

        One confidence closes the budget exactly; the other knobs are moved one at a time, each to its best place, until
        none gains: of two members that is nearly every setting, of more a good one.

        Raises:
            UserError: no setting comes within 2 %.
        """
        if not self.cheapest.cost * (1 - CLOSE) <= budget <= self.dearest.cost * (1 + CLOSE):
            raise OutOfReach(self.cheapest.cost, self.dearest.cost)
        found = [setting for start in self._starts() for setting in self._closed(start, budget)]
        good = [setting for setting in found if _exact(setting, budget)]
        if not good:  # too few images, or too many that are sure alike
            nearest = min(found, key=lambda setting: abs(setting.cost - budget))
            if abs(nearest.cost - budget) > CLOSE * budget:
                raise OutOfReach(self.cheapest.cost, self.dearest.cost, nearest.cost)
            return nearest
        best = max(good, key=lambda setting: setting.worth)
        while True:
            moved = [setting for start in self._moves(best) for setting in self._closed(start, budget)]
            better = max(
                (setting for setting in moved if _exact(setting, budget)),
                key=lambda setting: setting.worth,
                default=best,
            )
            if better.worth <= best.worth + 1e-12:
                return self._at_home(best, budget)
            best = better

    def _at_home(self, best: Setting, budget: float) -> Setting:
        """Each member back at its own threshold where that loses no more than chance would: a standard error of the
        paired difference."""
        for k, rans in enumerate(self.table):
            home = next((place for place, ran in enumerate(rans) if ran.own), best.chosen[k])
            chosen = (*best.chosen[:k], home, *best.chosen[k + 1 :])
            for setting in self._closed((chosen, best.confidences), budget) if home != best.chosen[k] else ():
                lost = self._worths(best) - self._worths(setting)
                if _exact(setting, budget) and lost.mean() <= lost.std() / math.sqrt(len(lost)):
                    best = setting
                    break
        return best

    def _worths(self, setting: Setting) -> np.ndarray:
        """(N,) worth of each image's answer."""
        return self._from(0, setting.chosen, setting.confidences)[1]

    def _starts(self) -> Iterator[tuple[tuple[int, ...], tuple[float, ...]]]:
        """Thresholds of all kinds (of many members the same place for each), confidences alike."""
        places = [range(len(rans)) for rans in self.table]
        choices = product(*places) if self.last == 1 else self._alike()
        for chosen in choices:
            for level in (1.0,) if self.last == 1 else (0.5, 0.9, 0.99, 0.999, 1.0):
                yield tuple(chosen), (level,) * self.last

    def _alike(self) -> Iterator[tuple[int, ...]]:
        for place in range(max(map(len, self.table))):
            yield tuple(min(place, len(rans) - 1) for rans in self.table)

    def _moves(self, setting: Setting) -> Iterator[tuple[tuple[int, ...], tuple[float, ...]]]:
        """Every setting that differs from this one in one knob."""
        for k, rans in enumerate(self.table):
            for place in range(len(rans)):
                yield (*setting.chosen[:k], place, *setting.chosen[k + 1 :]), setting.confidences
        for k in range(self.last) if self.last > 1 else ():
            sure = self.table[k][setting.chosen[k]].sure
            for level in (0.0, *np.quantile(sure, np.linspace(0, 1, LEVELS)).tolist(), 1.0):
                yield setting.chosen, (*setting.confidences[:k], level, *setting.confidences[k + 1 :])

    def _closed(self, start: tuple[tuple[int, ...], tuple[float, ...]], budget: float) -> Iterator[Setting]:
        """The start with one of its confidences moved to where the cost is nearest to the budget; each in its turn."""
        chosen, confidences = start
        for k in range(self.last):
            ran = self.table[k][chosen[k]]
            reached = self.reaching(Setting(chosen, confidences, 0, 0))[k]
            stopping, _ = self._from(0, chosen, (*confidences[:k], 0.0, *confidences[k + 1 :]))
            further, _ = self._from(k + 1, chosen, confidences)
            order = np.flatnonzero(reached)[np.argsort(ran.sure[reached], kind="stable")]
            sure = ran.sure[order]
            costs = stopping.mean() + np.concatenate([[0], further[order].cumsum()]) / len(stopping)
            apart = np.concatenate([[True], sure[1:] > sure[:-1], [True]]) if len(sure) else np.array([True])
            counts = np.flatnonzero(apart)  # so many may go on: images that are sure alike stay together
            count = int(counts[np.abs(costs[counts] - budget).argmin()])
            yield self.setting(chosen, (*confidences[:k], _between(sure, count), *confidences[k + 1 :]))

    def _from(self, k: int, chosen: Sequence[int], confidences: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) cost of the members from `k` on and worth of the answer, for images that reach `k`."""
        ran = self.table[k][chosen[k]]
        if k == self.last:
            return ran.cost, ran.worth
        cost, worth = self._from(k + 1, chosen, confidences)
        on = ran.sure <= confidences[k]
        return ran.cost + np.where(on, cost, 0), np.where(on, worth, ran.worth)


class OutOfReach(Exception):
    """No setting costs so much; in the unit of the tables."""

    def __init__(self, low: float, high: float, nearest: float | None = None) -> None:
        super().__init__()
        self.low, self.high, self.nearest = low, high, nearest

    def told(self, budget: str, form: Callable[[float], str]) -> UserError:
        if self.nearest is not None:
            return UserError(f"{budget} is out of reach: the nearest that confidences give is {form(self.nearest)}.")
        return UserError(f"{budget} is out of reach: this cascade takes {form(self.low)} to {form(self.high)}.")


def _exact(setting: Setting, budget: float) -> bool:
    """Whether a setting comes so near to the budget that its worth may be compared."""
    return abs(setting.cost - budget) <= EXACT * budget


def _between(sure: np.ndarray, count: int) -> float:
    """A confidence with which just `count` of the ascending values go on."""
    if count == 0:
        return 0.0
    if count == len(sure):
        return 1.0
    middle = (sure[count - 1] + sure[count]) / 2
    return float(middle if middle < sure[count] else sure[count - 1])
