"""Run folders: what is on disk, written atomically, read without executing anything from it.

config.json         the run, complete (spnet.training.config)
model.safetensors   the network's weights and calibrated threshold
state/resume.pt     everything an exact resume needs (tensors and plain values; read with weights_only)
metrics.jsonl       one object an epoch
result.json         the test set, read once after the last epoch
"""

import importlib.util
import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spnet.build import build_network, create_method
from spnet.data.match import known_classes
from spnet.dynamic import DynamicNetwork
from spnet.errors import UserError
from spnet.files import read_json, write_bytes, write_json, write_text
from spnet.training.config import RunConfig
from spnet.version import __version__

FORMAT = 1
"""Raised when a run folder of an older version can no longer be read."""
FACTS = ("classes", "input_shape", "mean", "std")
"""What loading needs besides the run."""
RESUMED = {"epoch", "rows", "net", "method", "optimizer", "previous_decisions"}
"""What an exact resume needs."""


def write_config(folder: Path, config: RunConfig, facts: dict[str, Any]) -> None:
    """`facts`: one value for each of FACTS, `started_from` (see `named`), the `commits` of the sources that trained it,
    in order, and `data_at`, where its images lie on this machine."""
    write_json(folder / "config.json", {"format": FORMAT, "spnet": __version__, **config.to_json(), **facts})


def read_config(folder: Path) -> tuple[RunConfig, dict[str, Any]]:
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
    lacking = [key for key in ("method", "wrapper", "backbone", "data", "settings", *FACTS) if key not in record]
    if lacking:
        raise UserError(f"{folder / 'config.json'} lacks '{lacking[0]}': restore it or start the run anew.")
    _check_facts(folder, record)
    return RunConfig.from_json(record), record


def _check_facts(folder: Path, record: dict[str, Any]) -> None:
    """`UserError` for facts of the wrong kind."""

    def numbers(value: Any, kind: type | tuple[type, ...] = (int, float)) -> bool:
        return isinstance(value, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)

    right = {
        "classes": isinstance(record["classes"], list) and len(record["classes"]) > 0,
        "input_shape": numbers(record["input_shape"], int) and len(record["input_shape"]) == 3,
        "mean": numbers(record["mean"]),
        "std": numbers(record["std"]),
        "settings": isinstance(record["settings"], dict),
        **{name: isinstance(record[name], str) for name in ("method", "wrapper", "backbone", "data")},
    }
    wrong = [name for name, fits in right.items() if not fits]
    if wrong:
        raise UserError(f"{folder / 'config.json'} is damaged: '{wrong[0]}' is of the wrong kind. Restore it.")


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
        write_bytes(folder / "model.pt", _torch_bytes(state))
        return
    from safetensors.torch import save

    write_bytes(folder / "model.safetensors", save(state))


def load_network(folder: Path) -> DynamicNetwork:
    """Rebuild the network of a run folder, in eval mode, on the CPU."""
    config, facts = read_config(folder)
    net = build_network(
        create_method(config.method, config.wrapper, config.method_settings),
        config.backbone,
        num_classes=len(facts["classes"]),
        input_shape=tuple(facts["input_shape"]),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
    )
    load_weights(net, folder / "model.safetensors")
    net.classes = known_classes(facts["classes"], config.data_name)
    return net.eval()


def load_weights(net: DynamicNetwork, path: Path) -> None:
    """Fill a network from a safetensors file; `UserError` if missing, truncated, or of another network."""
    try:
        state = load_tensors(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: the run has not finished an epoch.") from error
    except OSError as error:
        raise UserError(f"{path} is damaged ({error}): restore it or resume the run.") from error
    fit_state(net, state, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; OSError if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def named(init: Path | None) -> dict[str, str] | None:
    """The run whose weights are the start, as config.json and result.json name it; None for fresh weights.

    A fact about a run, no part of its hash; the folder's name only, for its place means nothing elsewhere.
    """
    return None if init is None else {"name": init.absolute().name, "hash": read_config(init)[0].hash}


def fit_state(net: torch.nn.Module, state: dict[str, Tensor], source: Path) -> None:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise UserError(f"{source} belongs to another network: {first}") from error


def save_resume(folder: Path, record: dict[str, Any]) -> None:
    """`record`: one value for each of RESUMED, tensors and plain values only."""
    write_bytes(folder / "state" / "resume.pt", _torch_bytes({"format": FORMAT, **record}))


def _torch_bytes(record: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(record, buffer)
    return buffer.getvalue()


def load_resume(folder: Path, epochs: int) -> dict[str, Any]:
    """The state from which a run of so many epochs is resumed exactly; `UserError` when missing, truncated, foreign or
    impossible."""
    path = folder / "state" / "resume.pt"
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{folder} cannot be resumed: it has no state/resume.pt.") from error
    except Exception as error:  # a damaged file raises almost anything: pickle, zip, EOF, runtime errors
        raise UserError(f"{path} is damaged and cannot be resumed: restore it or start the run anew.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or not record.keys() >= RESUMED:
        raise UserError(f"{path} was written by another version of spnet: start the run anew.")
    if not _possible(record, epochs):
        raise UserError(f"{path} is damaged: it is no state of this run. Restore it or start the run anew.")
    return record


def _possible(record: dict[str, Any], epochs: int) -> bool:
    """Whether the entries are of the right kind, and as many epochs are done as there are rows."""
    done, rows = record["epoch"], record["rows"]
    states = (record["net"], record["method"], *([record["optimizer"]] if record["optimizer"] is not None else []))
    return (
        type(done) is int
        and 0 <= done <= epochs
        and isinstance(rows, list)
        and len(rows) == done
        and all(isinstance(entry, dict) for entry in (*rows, *states))
        and isinstance(record["previous_decisions"], Tensor | None)
        and (done == 0) == (record["optimizer"] is None)
    )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; a last line cut off by a kill is dropped."""
    path = folder / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
