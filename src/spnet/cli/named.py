"""What stands where a verb wants a network: a run folder, a shipped network, or a cascade of such, `A+B`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spnet.data import Dataset, Source
    from spnet.inference.cascade import Model
    from spnet.runs.config import RunConfig
    from spnet.runs.run import Run

HELP = "run folder, the name of a shipped network, or several from cheap to dear as a cascade: A+B"
ENOUGH = 500
"""Images to calibrate a cascade on: fewer that no member has seen are not worth more than many that they have."""


@dataclass(frozen=True)
class Named:
    """A network and the runs it is made of: one, or those of a cascade's members.

    Attributes:
        names: of the runs, as they were given.
    """

    names: tuple[str, ...]
    net: "Model"
    runs: "tuple[Run, ...]"

    @property
    def config(self) -> "RunConfig":
        """Of the run, or of a cascade's last member."""
        return self.runs[-1].config

    @property
    def label(self) -> str:
        return " + ".join(run.config.label for run in self.runs)

    @property
    def cost(self) -> float | None:
        """What an image costs as the record says, a share of static; nothing is said of cascades."""
        return self.runs[0].cost if len(self.runs) == 1 else None

    def trained(self) -> dict[str, Any]:
        """How long it was trained: `epochs` of each run and `student_passes` in all; nothing where a run lacks a record
        that can be read."""
        from spnet.errors import UserError

        try:
            passes = [run.result.passes for run in self.runs]
        except UserError:
            return {}
        epochs = [run.config.training.epochs for run in self.runs]
        return {} if None in passes else {"epochs": epochs, "student_passes": sum(filter(None, passes))}

    def data(self, spec: str | None, **how: Any) -> "Dataset":
        """The data it was trained on, or `spec`, as the network takes them; `how` as of `Run.data`."""
        return self.runs[-1].data(spec, **how)

    def settle(self, train: "Source", budget: float, exit_confidence: float | None = None) -> None:
        """Put the knobs into the network that meet a budget on training images."""
        from spnet.inference.engine import Engine
        from spnet.training.finish import CALIBRATION_IMAGES

        engine = Engine(self.net, "gathered", exit_confidence=exit_confidence)
        part, _ = to_calibrate_on(train, self, CALIBRATION_IMAGES)
        engine.calibrate(part.images, budget)
        engine.settle()


def members(run: str) -> list[str]:
    """The names in `A+B`; one where there is no `+`, or where a folder has it in its name."""
    return [run] if Path(run).exists() else run.split("+")


def open_named(run: str) -> Named:
    """Load it; `UserError` for what is no run, or for members that do not go together."""
    from spnet.errors import UserError
    from spnet.inference.cascade import Cascade
    from spnet.runs.run import Run

    names = members(run)
    if not all(names):
        raise UserError(f"'{run}' names no cascade: runs are joined by single plus signs, such as A+B.")
    runs = tuple(map(Run, names))
    nets = [run.network() for run in runs]
    return Named(tuple(names), nets[0] if len(nets) == 1 else Cascade(nets), runs)


def to_calibrate_on(train: "Source", named: Named, count: int) -> "tuple[Source, bool]":
    """Up to `count` training images; and for a cascade whether they are such as no member was trained on, which are
    taken if there are enough: how sure a network is of what it was trained on says less."""
    from spnet.inference.calibrate import spread
    from spnet.training.parts import unseen

    if len(named.names) == 1:
        return spread(train, count), False
    fresh = unseen(train, [run.config for run in named.runs])
    held_out = len(fresh) >= ENOUGH
    return spread(train.select(fresh) if held_out else train, count), held_out
