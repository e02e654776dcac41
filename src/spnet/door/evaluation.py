"""`spnet.evaluate`."""

from dataclasses import replace
from pathlib import Path

from spnet.data import Dataset, Source
from spnet.door.given import images_for, opened
from spnet.errors import UserError
from spnet.inference.calibrate import spread
from spnet.inference.cascade import Cascade
from spnet.inference.cascade.engine import CascadeEngine
from spnet.inference.cascade.evaluate import evaluate_cascade
from spnet.inference.engine import Engine
from spnet.inference.evaluate import evaluate as evaluate_network
from spnet.network.dynamic import DynamicNetwork
from spnet.runs.record import Evaluation
from spnet.runs.run import Run
from spnet.training.finish import CALIBRATION_IMAGES


def evaluate(
    network: "str | Path | Run | DynamicNetwork | Cascade",
    data: str | Dataset | Source | None = None,
    *,
    executor: str = "masked",
    budget: float | None = None,
    exit_confidence: float | None = None,
    max_cost: float | None = None,
    threads: int | None = None,
    batch_size: int = 256,
) -> Evaluation:
    """Accuracy, cost, paths and controls by the test rule: arg-max decisions, no noise, every multiply-add counted.

    Args:
        network: a run, its folder or name, a network, or a cascade; a network is put into eval mode.
        data: `NAME` or `NAME:PATH` or a `Dataset`, whose test images are read, or a `Source` of images; left out, the
            run's own.
        executor, exit_confidence, max_cost, threads: as of `Engine`.
        budget: calibrate first, on training images, to this share of the static cost; the network itself keeps its
            threshold. Needs data with training images.
        batch_size: images at a time.

    Returns the figures: `accuracy` in percent, `n`, `macs_mean` an image, `cost_ratio` of the static network,
    `accuracy_shuffled_paths`, `accuracy_fixed_path`, ...

    Raises:
        UserError: no such run or data, data that do not go with the network, a rule it cannot serve.

    Example:
        >>> figures = spnet.evaluate("runs/digits")
        >>> figures.n, 0 < figures.accuracy <= 100, figures.cost_ratio < 1.5
        (450, True, True)
        >>> spnet.evaluate("runs/digits", executor="gathered", budget=0.8).cost_ratio < 1
        True
    """
    net, run = opened(network)
    found = images_for(data, net, run)
    engine = Engine(net, executor, budget=budget, threads=threads, exit_confidence=exit_confidence, max_cost=max_cost)
    if budget is not None:
        if not isinstance(found, Dataset):
            raise UserError("a budget is met on training images: give a data set, not a part of one.")
        engine.calibrate(spread(found.train, CALIBRATION_IMAGES).images)
    test = found.test if isinstance(found, Dataset) else found
    if isinstance(engine, CascadeEngine):
        return evaluate_cascade(engine, test, batch_size=batch_size)
    net = engine.model
    plain = executor == "masked" and budget is None and exit_confidence is None and max_cost is None
    before = net.decision_shift.clone()
    engine.settle()  # the controls ask the network
    try:
        size = 1 if executor == "branching" else batch_size
        figures = evaluate_network(net, test, forward=None if plain else engine, batch_size=size)
    finally:
        net.decision_shift.copy_(before)
    return figures if budget is None else replace(figures, budget=budget)
