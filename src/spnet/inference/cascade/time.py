"""A budget in milliseconds for a cascade: settings have a price, the whole is timed, and the price is corrected."""

from collections.abc import Callable
from dataclasses import replace

from spnet.errors import UserError
from spnet.inference.cascade.plan import OutOfReach, Planner, Setting
from spnet.inference.time_budget import STEPS, TOLERANCE, Latency, way_of


def meet_time(planner: Planner, timed: Callable[[Setting], Latency], budget_ms: float | str) -> tuple[Setting, Latency]:
    """The worthiest setting at which an image takes `budget_ms` milliseconds on average, and what was measured there.

    Within 3 %; where no setting was found so near, the dearest that was tried below it.

    Args:
        planner: of tables whose costs are milliseconds.
        timed: puts a setting in force and times single images.
        budget_ms: milliseconds, or "50%": that far from the fastest to the slowest this cascade takes here.

    Raises:
        UserError: no time, or one that this cascade does not take here.
    """
    way = way_of(budget_ms)
    tried = [(setting, timed(setting)) for setting in (planner.cheapest, planner.dearest)]
    low, high = (latency.milliseconds_per_image for _, latency in tried)
    goal = low + way * (high - low) if way is not None else float(budget_ms)
    if not low * (1 - TOLERANCE) <= goal <= high * (1 + TOLERANCE):
        threads = tried[0][1].threads
        raise UserError(
            f"budget_ms {goal:g} is out of reach: this cascade takes {low:.3g} to {high:.3g} ms an image here "
            f"(one at a time, {threads} thread(s))."
        )

    def near(latency: Latency) -> bool:
        return abs(latency.milliseconds_per_image - goal) <= TOLERANCE * goal

    price = goal
    for _ in range(STEPS):
        if any(near(latency) for _, latency in tried):
            break
        try:
            setting = planner.meet(min(max(price, planner.cheapest.cost), planner.dearest.cost))
        except OutOfReach:  # a gap between confidences: what was tried must do
            break
        tried.append((setting, timed(setting)))
        price *= goal / tried[-1][1].milliseconds_per_image
    close = [each for each in tried if near(each[1])]
    below = [each for each in tried if each[1].milliseconds_per_image <= goal] or tried[:1]
    setting, latency = (
        min(close, key=lambda each: abs(each[1].milliseconds_per_image - goal))
        if close
        else max(below, key=lambda each: each[1].milliseconds_per_image)
    )
    return setting, replace(latency, budget_ms=goal)
