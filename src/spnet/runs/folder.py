"""Run folders: what is on disk, written atomically, read without executing anything from it.

config.json         the run, complete (spnet.runs.config)
model.safetensors   the network's weights and calibrated threshold
state/resume.pt     everything an exact resume needs (tensors and plain values; read with weights_only)
metrics.jsonl       one object an epoch
result.json         the test set, read once after the last epoch
"""

import importlib.util
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spnet.build import build_network, checked_sizes, create_method
from spnet.data.match import known_classes
from spnet.errors import UserError, out_of_memory
from spnet.files import read_json, write_bytes, write_json
from spnet.network.dynamic import DynamicNetwork
from spnet.runs import weights
from spnet.runs.config import RunConfig
from spnet.runs.facts import Facts
from spnet.runs.forms import Misfit, fill, to_json
from spnet.runs.record import Start, WrittenConfig
from spnet.runs.state_file import digest, torch_bytes, torch_file
from spnet.version import __version__

FORMAT = 1
"""Raised when a run folder of an older version can no longer be read."""
FACTS = ("classes", "input_shape", "mean", "std")
"""What loading needs besides the run."""
RESUMED = {"epoch", "rows", "net", "method", "optimizer", "previous_decisions"}
"""What an exact resume needs."""


def write_config(folder: Path, config: RunConfig, facts: Facts) -> None:
    said = {**to_json(facts), "spnet": __version__}
    write_json(folder / "config.json", {"format": FORMAT, **config.to_json(), **said})


RUN = ("method", "wrapper", "backbone", "data", "settings")
"""What of config.json says what was trained."""


def read_config(folder: Path) -> tuple[RunConfig, Facts]:
    """The run and its facts; `UserError` for a folder that holds no run, or one of another format or version."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a run folder: it does not exist.")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.json.")
    record = read_json(folder / "config.json")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else None
        raise UserError(
            f"{folder} was written in format {found}, this spnet {__version__} reads format {FORMAT}: retrain it."
        )
    lacking = [key for key in (*RUN, *FACTS) if key not in record]
    if lacking:
        raise UserError(f"{folder / 'config.json'} lacks '{lacking[0]}': restore it or start the run anew.")
    try:
        # Where images lay and who wrote the file are hints: what is no text says nothing.
        hints = {name: text if isinstance(text := record.get(name), str) else "" for name in ("data_at", "spnet")}
        facts = fill(Facts, {**record, **hints}, whole=True)
        fill(WrittenConfig, record, whole=True)
        if (empty := next((name for name in RUN if record[name] is None), None)) is not None:
            raise Misfit(empty)
        if (wrong := facts.fault()) is not None:
            raise Misfit(wrong)
    except Misfit as error:
        wrong = error.name.partition("/")[0]
        raise UserError(f"{folder / 'config.json'} is damaged: '{wrong}' is of the wrong kind. Restore it.") from error
    checked_sizes(len(facts.classes), *facts.input_shape)
    return RunConfig.from_json(record), facts


def without_place(record: dict[str, Any]) -> dict[str, Any]:
    """A config.json that may leave this machine: it says which data, not where they lay."""
    kept = {name: value for name, value in record.items() if name != "data_at"}
    return {**kept, "data": record["data"].split(":")[0]}


def save_network(folder: Path, net: DynamicNetwork) -> None:
    """Write model.safetensors; on a bare machine without safetensors model.pt, which holds the same names and
    tensors (`torch.load(path, weights_only=True)`) and is turned into the other elsewhere."""
    state = {name: value.detach().contiguous().clone() for name, value in net.state_dict().items()}
    if importlib.util.find_spec("safetensors") is None:
        warnings.warn("safetensors is not installed: weights are written to model.pt instead.", stacklevel=2)
        write_bytes(folder / "model.pt", torch_bytes(state))
        return
    write_bytes(folder / "model.safetensors", weights.to_bytes(state))


def load_network(folder: Path) -> DynamicNetwork:
    """Rebuild the network of a run folder, in eval mode, on the CPU."""
    config, facts = read_config(folder)
    net = build_network(
        create_method(config.method, config.wrapper, config.method_settings),
        config.backbone,
        num_classes=len(facts.classes),
        input_shape=facts.input_shape,
        mean=facts.mean,
        std=facts.std,
        seed=0,  # the weights are overwritten; drawn from a stream of their own, the caller's stays where it was
    )
    load_weights(net, folder / "model.safetensors")
    net.classes = known_classes(facts.classes, config.data_name)
    return net.eval()


def load_weights(net: DynamicNetwork, path: Path) -> None:
    """Fill a network from a safetensors file; `UserError` if missing, truncated, or of another network."""
    try:
        state = weights.read(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: the run has not finished an epoch.") from error
    except OSError as error:
        raise UserError(f"{path} is damaged ({error}): restore it or resume the run.") from error
    fit_state(net, state, path)


def named(init: Path | DynamicNetwork | None) -> Start | None:
    """The run, or the file, whose weights are the start, as config.json and result.json name it; None for fresh ones.

    A fact about a run, no part of its hash; the last part of the name only, for its place means nothing elsewhere.
    """
    if init is None:
        return None
    if isinstance(init, DynamicNetwork):
        return Start("a network", weights.checksum(init.state_dict())[:12])
    return Start(init.absolute().name, read_config(init)[0].hash if init.is_dir() else digest(init))


def fit_state(net: torch.nn.Module, state: dict[str, Tensor], source: Path) -> None:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        what, _, names = first.partition(": ")
        if (count := names.count('"') // 2) > 3:  # a large network has hundreds
            first = f"{what}: {names.partition(',')[0]} and {count - 1} more."
        raise UserError(f"{source} belongs to another network: {first}") from error
    except (AttributeError, TypeError, ValueError) as error:  # a damaged state names or holds no tensors
        raise UserError(f"{source} is damaged: restore it or start the run anew.") from error


def save_resume(folder: Path, record: dict[str, Any]) -> None:
    """`record`: one value for each of RESUMED, tensors and plain values only."""
    write_bytes(folder / "state" / "resume.pt", torch_bytes({"format": FORMAT, **record}))


def load_resume(folder: Path) -> dict[str, Any]:
    """The state an exact resume starts from; `UserError` when missing, damaged or foreign. What it says is checked in
    `spnet.runs.resumed`."""
    path = folder / "state" / "resume.pt"
    try:
        record = torch_file(path)
        with zipfile.ZipFile(path) as archive:
            spoilt = archive.testzip()  # the first whose checksum does not fit
    except FileNotFoundError as error:
        raise UserError(f"{folder} cannot be resumed: it has no state/resume.pt.") from error
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UserError(f"{path} is damaged and cannot be resumed: restore it or start the run anew.") from error
    if spoilt is not None:
        raise UserError(f"{path} is damaged and cannot be resumed: restore it or start the run anew.")
    known = isinstance(record, dict) and type(record.get("format")) is int and record["format"] == FORMAT
    if not known or not record.keys() >= RESUMED:
        raise UserError(f"{path} was written by another version of spnet: start the run anew.")
    return record
