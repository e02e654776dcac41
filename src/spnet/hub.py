"""Networks as folders that can be shared, and the Hugging Face Hub: save, load, push.

A saved network is what `spnet.load` reads of a run folder (config.json, model.safetensors), with a README.md that is
its card. Loading executes nothing from it. Only what talks to the Hub needs huggingface_hub (extra `hub`).
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from spnet.door import config_of
from spnet.errors import UserError
from spnet.files import write_bytes
from spnet.methods import card_of
from spnet.network.dynamic import DynamicNetwork
from spnet.report.card import what
from spnet.report.wrap import wrapped
from spnet.runs.config import RunConfig
from spnet.runs.facts import Facts
from spnet.runs.folder import load_network, save_network, write_config
from spnet.runs.run import Run

FILES = ("config.json", "model.safetensors", "README.md")
"""All that a saved network is; the weights last when they are written, for they make a network of a folder."""
UNKNOWN = "unknown"
"""The data of a network that was not trained by a run."""
PLACE = "FOLDER or user/name"
HEAD = """---
library_name: spnet
pipeline_tag: image-classification
tags:
- dynamic-inference
- {method}
---
"""


def save_pretrained(network: "str | Path | Run | DynamicNetwork", folder: str | Path, *, backbone: str = "") -> Path:
    """Write a network as a folder: config.json, model.safetensors and its card as README.md. Returns the folder.

    Nothing in it says where images lay on this machine.

    Args:
        network: a run, its folder or name; or a network of `make_dynamic` or `create_model`.
        folder: where to; files of these names in it are replaced.
        backbone: of a network of your own, by which name the plain one is built again: `torchvision:NAME`, `timm:NAME`
            or `package.module:function`.

    Raises:
        UserError: no such run, a network that cannot be built again by name, a folder that holds a run or cannot be
            written.

    Example:
        >>> folder = spnet.hub.save_pretrained("runs/digits", "digits-hub")
        >>> sorted(file.name for file in folder.iterdir())
        ['README.md', 'config.json', 'model.safetensors']
    """
    out = Path(folder)
    if (out / "metrics.jsonl").exists() or (out / "state").exists():
        raise UserError(f"{out} holds a run: choose another folder.")
    with tempfile.TemporaryDirectory() as made:
        _write(Path(made), network, backbone)
        load_network(Path(made))  # refuses what would not load again
        for name in sorted(FILES, key="model.safetensors".__eq__):
            write_bytes(out / name, (Path(made) / name).read_bytes())
    return out


def from_pretrained(
    source: str | Path, *, revision: str | None = None, token: str | None = None, local_files_only: bool = False
) -> DynamicNetwork:
    """The network of a folder that `save_pretrained` wrote, or of a repository `user/name` on the Hub; on the CPU, in
    eval mode.

    Args:
        revision: branch, tag or commit of the repository.
        token: of a private one; left out, the one that this machine has stored.
        local_files_only: take what an earlier call has downloaded, and ask nobody.

    Raises:
        UserError: no such folder or repository, damaged files, the Hub cannot be reached.

    Example:
        >>> folder = spnet.hub.save_pretrained("runs/digits", "digits-hub")
        >>> spnet.hub.from_pretrained(folder).input_shape
        (1, 8, 8)
    """
    if Path(source).is_dir():
        return load_network(Path(source))
    how: dict[str, Any] = {"revision": revision, "token": token, "local_files_only": local_files_only}
    with _told(f"'{source}' is no folder, and cannot be had from the Hub"):
        return load_network(Path(_hub().snapshot_download(str(source), allow_patterns=[*FILES], **how)))


def push_to_hub(
    network: "str | Path | Run | DynamicNetwork",
    repository: str,
    *,
    backbone: str = "",
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload a network of spnet",
) -> str:
    """Save a network and upload the folder to the Hub; makes the repository where it is not there. Returns the address
    of the commit.

    Args:
        network, backbone: as of `save_pretrained`.
        repository: `user/name`.
        private: of a new repository; None takes the account's default.
        token: None takes the one that this machine has stored.

    Raises:
        UserError: as `save_pretrained`; no token, no right to write there, the Hub cannot be reached.
    """
    hub = _hub()
    with tempfile.TemporaryDirectory() as made, _told(f"cannot upload to '{repository}'"):
        save_pretrained(network, made, backbone=backbone)
        hub.create_repo(repository, private=private, token=token, exist_ok=True)
        done = hub.upload_folder(repo_id=repository, folder_path=made, token=token, commit_message=message)
    return str(done.commit_url)


def _write(folder: Path, network: "str | Path | Run | DynamicNetwork", backbone: str) -> None:
    """The files, into a folder of our own."""
    if isinstance(network, DynamicNetwork):
        net, config, facts = network, config_of(network, backbone, UNKNOWN, {}), _facts_of(network)
        card = _card(config, facts)
    elif backbone:
        raise UserError("a run knows its backbone: leave it out.")
    else:
        run = Run(network)
        net = run.network()
        config = RunConfig.from_json({**run.config.to_json(), "data": run.config.data_name})
        facts = replace(run.facts, data_at="")
        own = run.folder / "card.md"  # a network that ships has one
        card = own.read_text("utf-8") if own.is_file() else _card(config, facts, run)
    write_config(folder, config, facts)
    save_network(folder, net)
    write_bytes(folder / "README.md", (HEAD.format(method=_method(config)) + "\n" + card).encode())


def _facts_of(net: DynamicNetwork) -> Facts:
    names = net.classes or tuple(map(str, range(net.num_classes)))
    return Facts(names, net.input_shape, tuple(net.mean.flatten().tolist()), tuple(net.std.flatten().tolist()))


def _card(config: RunConfig, facts: Facts, run: Run | None = None) -> str:
    """Figures of the record where there is one, how to use it, and the card of its method."""
    shown = f"`{config.label}` on {config.backbone}"
    if run is not None:
        trained = f"{shown}, trained on {config.data}"
        shown = what(config, run.result, run.result.routed) if run.finished else f"{trained}; it has no record."
    shape = " x ".join(map(str, facts.input_shape))
    names = ", ".join(facts.classes[:20]) + (", ..." if len(facts.classes) > 20 else "")
    takes = f"It takes images of {shape} (channels, height, width) and knows {len(facts.classes)} classes: {names}."
    use = f"```python\nfrom spnet import hub\n\nnet = hub.from_pretrained({PLACE!r})\n```"
    card = card_of(_method(config))
    method = card.read_text("utf-8") if card.is_file() else ""
    return wrapped("\n\n".join([f"# {config.label}, {config.backbone}", shown, takes, use, method.strip()])) + "\n"


def _method(config: RunConfig) -> str:
    """The method whose card it is: the outermost wrapper, or the method itself."""
    return (config.wrapper or config.method).split("+")[-1]


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("the Hub needs huggingface_hub: pip install huggingface_hub.") from error
    return huggingface_hub


@contextmanager
def _told(failed: str) -> Iterator[None]:
    """What goes wrong between here and the Hub, as one line."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        reason, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{failed}: {reason}") from error
