"""One object for a run: its folder, config, facts, record, network, images and measured cost."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spnet.errors import UserError
from spnet.files import read_json
from spnet.runs.config import RunConfig
from spnet.runs.facts import Facts, home_of_data
from spnet.runs.folder import load_network, load_resume, read_config
from spnet.runs.forms import Misfit, fill
from spnet.runs.open import run_folder
from spnet.runs.record import EpochRow, RunResult, read_metrics, read_result

if TYPE_CHECKING:
    from spnet.data import Dataset
    from spnet.network.dynamic import DynamicNetwork


class Run:
    """A run on disk, finished or under way. Opening it executes nothing from the folder; what it holds is read, and
    checked, when it is asked for.

    Args:
        run: the name of a shipped network, or a run folder. A `Path` is never a name.

    Attributes:
        folder: where it lies.
        config: method, wrapper, backbone, data and every setting (`RunConfig`).
        facts: classes, input shape (C, H, W), mean and std, where its images lay (`Facts`).

    Raises:
        UserError: no such run, a config.json of another version, or one that says what cannot be.

    Example:
        >>> run = spnet.Run("runs/digits")
        >>> run.config.method, run.facts.input_shape, run.finished
        ('spnet', (1, 8, 8), True)
        >>> run.result.final.n  # test images
        40
        >>> run.network().num_classes
        10
    """

    def __init__(self, run: "str | Path | Run") -> None:
        if isinstance(run, Run):
            run = run.folder
        self.folder: Path = run_folder(run)
        self.config: RunConfig
        self.facts: Facts
        self.config, self.facts = read_config(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {self.config.label} on {self.config.data}, {self.config.backbone})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.facts.classes

    @property
    def finished(self) -> bool:
        """Whether it has a record: the last epoch is done, and the test images were read."""
        return (self.folder / "result.json").is_file()

    @cached_property
    def result(self) -> RunResult:
        """Its record (`spnet.runs.record`); `UserError` where it is not finished, or where the file is damaged."""
        if not self.finished:
            raise UserError(f"{self.folder} is not finished: it has no result.json.")
        return read_result(self.folder / "result.json")

    @cached_property
    def rows(self) -> list[EpochRow]:
        """Its log, a row an epoch; `UserError` for a damaged one."""
        return read_metrics(self.folder)

    @cached_property
    def cost(self) -> float | None:
        """Mean cost of a test image as its record says, a share of the static cost; None where it says nothing."""
        if not self.finished:
            return None
        try:
            cost = fill(RunResult, read_json(self.folder / "result.json")).final.cost_ratio
        except Misfit:
            return None
        return cost if 0 < cost <= 1.5 else None

    def network(self) -> "DynamicNetwork":
        """Its trained network, loaded anew at each call: on the CPU, in eval mode; `net.classes` are the names of its
        classes. `UserError` where no epoch is done or the weights are damaged."""
        return load_network(self.folder)

    def resume_state(self) -> dict[str, Any]:
        """The state an exact resume starts from: tensors and plain values. `UserError` when missing or damaged."""
        return load_resume(self.folder)

    @property
    def home(self) -> str:
        """Where its images lie, `NAME` or `NAME:PATH`: where they lay in training if they still do, else as said."""
        return home_of_data(self.config.data, self.facts)

    def data(self, spec: str | None = None, **how: Any) -> "Dataset":
        """The images it was trained on, or those of `spec`, as its network takes them: classes matched by name, images
        resized as in training, mirrored or not as in training.

        Args:
            how: `may_download`, `workers`, `cache_gb`, as of `spnet.data.load`.

        Raises:
            UserError: the images are not here, or are not fit for this network.
        """
        from spnet.data.match import known_classes, load_for

        classes = known_classes(self.classes, self.config.data_name)
        shape, count = self.facts.input_shape, len(self.classes)
        dataset = load_for(classes, shape, spec, self.home, num_classes=count, **how)
        return dataset.mirrored(self.config.training.flip)
