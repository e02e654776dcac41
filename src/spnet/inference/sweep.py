"""The trade-off curve of one trained network: accuracy against cost, by its decision threshold and by early exits.

Every point starts from the network as it was given. Thresholds and batch-norm statistics come from training images, no
label is read; the test images are read once for each point. The curve describes the network; a point picked from it by
its accuracy would have been selected on the test set.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from spnet.data import Augmentation, Source
from spnet.errors import UserError
from spnet.inference.calibrate import reestimate_batch_norm
from spnet.inference.cascade import Cascade, Model
from spnet.inference.cascade.engine import CascadeEngine
from spnet.inference.engine import Engine
from spnet.inference.evaluate import collect, summarise
from spnet.network.dynamic import DynamicNetwork
from spnet.progress import counted, work

BUDGETS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
CONFIDENCES = (0.7, 0.8, 0.9, 0.95, 0.99)
EXIT_BUDGET = 0.8
"""Share of the static cost with which early exits are combined."""
FIGURES = ("accuracy", "n", "macs_mean", "gflops_mean", "cost_ratio")


def sweep(
    net: Model,
    train: Source,
    test: Source,
    *,
    augmentation: Augmentation | None = None,
    executor: str = "masked",
    progress: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """One row a point; the network is left as it was.

    Shares of the static cost, each without and with batch-norm statistics estimated anew under the calibrated paths
    (and the threshold calibrated again); where the network has stage heads, early exits alone, at its own threshold,
    and calibrated to `EXIT_BUDGET`. Of a cascade: the shares, and one confidence for all members.

    A row holds what was asked (`budget`, `exit_confidence`, `reestimated`), the mean cost on the calibration images
    (`calibration_cost`), on the test images `accuracy` in percent, `n`, `macs_mean`, `gflops_mean`, `cost_ratio`,
    `execution_rate`, `distinct_paths`, `cost_error` (how far the cost is off the budget, as a share of it) and, for
    early exits, `exit_shares` (of the images, by stage; of a cascade by member, which `exit_by` says). A budget out of
    reach has `missed`, the reason, instead.

    Args:
        train: images to calibrate on.
        augmentation: what training did to them; batch-norm statistics are of images so treated.
        executor: as of `Engine`.
        progress: called with each row.

    Raises:
        UserError: the network decides nothing.
    """
    refuse_static(net)
    if isinstance(net, Cascade):
        return _sweep_cascade(net, train, test, executor, progress)
    rows: list[dict[str, Any]] = []
    exits = (None, EXIT_BUDGET) if net.stage_heads is not None else ()

    def add(budget: float | None, exit_confidence: float | None = None, reestimated: bool = False) -> None:
        asked = {"budget": budget, "exit_confidence": exit_confidence, "reestimated": reestimated}
        try:
            # Made anew each time, for the onnx executor keeps the weights it has seen first.
            engine = Engine(net, executor, exit_confidence=exit_confidence)
            cost = None if budget is None else engine.calibrate(train.images, budget)
            net.decision_shift.fill_(engine.decision_shift)  # what is estimated next is estimated on these paths
            row = {**asked, "calibration_cost": cost, **_figures(engine, test, budget)}
        except UserError as error:
            row = {**asked, "missed": str(error)}
        rows.append(row)
        progress(row)
        reached(len(rows))

    with work("points", 2 * len(BUDGETS) + len(exits) * len(CONFIDENCES)) as reached:
        for budget in BUDGETS:
            with unchanged(net):
                add(budget)
                reestimate_batch_norm(net, train, augmentation)
                add(budget, reestimated=True)
        for budget in exits:
            for confidence in CONFIDENCES:
                with unchanged(net):
                    add(budget, confidence)
    return rows


def _sweep_cascade(
    cascade: Cascade, train: Source, test: Source, executor: str, progress: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Rows as those of one network; all budgets are planned from one table, and the cascade is left as it was."""
    engine = CascadeEngine(cascade, executor)
    planner = engine.planner(train.images)
    rows: list[dict[str, Any]] = []
    points = [*((budget, None) for budget in BUDGETS), *((None, level) for level in CONFIDENCES)]
    for budget, confidence in counted(points, "points", len(points)):
        row: dict[str, Any] = {"budget": budget, "exit_confidence": confidence, "reestimated": False}
        row["exit_by"] = "member"
        try:
            if budget is None:
                engine = CascadeEngine(cascade, executor, exit_confidence=confidence)
            cost = None if budget is None else engine.meet(planner, budget)
            row |= {"calibration_cost": cost, **_figures(engine, test, budget)}
        except UserError as error:
            row["missed"] = str(error)
        rows.append(row)
        progress(row)
    return rows


def refuse_static(net: Model) -> None:
    """Raise `UserError` for a network that decides nothing."""
    if isinstance(net, DynamicNetwork) and not any(net.gated):
        raise UserError("a static network has no decisions to sweep: give a run of a dynamic method.")


def _figures(engine: Engine, test: Source, budget: float | None) -> dict[str, Any]:
    results = collect(engine, test, 1 if engine.executor == "branching" else 256)
    found = summarise(results, engine.model.static_macs, engine.model.options)
    shares = None
    if engine.exits > 1:
        shares = (results["exit_stage"].bincount(minlength=engine.exits) / len(test)).tolist()
    return {
        **{name: getattr(found, name) for name in FIGURES},
        "cost_error": None if budget is None else found.cost_ratio / budget - 1,
        "execution_rate": found.execution_rate,
        "distinct_paths": found.distinct_paths,
        "exit_shares": shares,
    }


@contextmanager
def unchanged(net: DynamicNetwork) -> Iterator[None]:
    """Whatever happens inside, weights, batch-norm statistics and threshold are as before at the end."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    try:
        yield
    finally:
        net.load_state_dict(before)
