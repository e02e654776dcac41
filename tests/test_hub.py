"""Networks as shared folders: what is saved loads again, says what it is, and tells nothing of this machine."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from tiny import images

import spnet
from spnet import hub
from spnet.errors import UserError

FILES = {"config.json", "model.safetensors", "README.md"}


def test_a_run_comes_back_as_it_was(trained: Path, tmp_path: Path) -> None:
    folder = hub.save_pretrained(trained, tmp_path / "shared")
    assert {file.name for file in folder.iterdir()} == FILES
    net, before = hub.from_pretrained(folder), spnet.load(trained)
    assert torch.equal(net(images(4)).logits, before(images(4)).logits) and net.classes == before.classes
    assert not net.training and spnet.load(folder).input_shape == (1, 8, 8)


def test_the_card_says_what_it_is_and_how_to_use_it(trained: Path, tmp_path: Path) -> None:
    card = (hub.save_pretrained(trained, tmp_path / "shared") / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: spnet\n") and "\n- spnet\n---\n" in card
    figures = spnet.Run(trained).result.final
    assert f"**{figures.accuracy:.2f} %** of the {figures.n} test images" in " ".join(card.split())
    assert "hub.from_pretrained(" in card and "## Idea" in card  # the method's own
    assert max(map(len, card.splitlines())) <= 120


def test_a_network_that_ships_keeps_its_card(tmp_path: Path) -> None:
    card = (hub.save_pretrained("cifar10-small", tmp_path / "small") / "README.md").read_text("utf-8")
    own = (spnet.Run("cifar10-small").folder / "card.md").read_text("utf-8")
    assert card.endswith(own)


def test_nothing_says_where_the_images_lay(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("config.json", "result.json", "model.safetensors"):
        (copy / name).write_bytes((trained / name).read_bytes())
    record = json.loads((copy / "config.json").read_text())
    record |= {"data": "folder:/home/somebody/pictures?size=8", "data_at": "folder:/home/somebody/pictures?size=8"}
    (copy / "config.json").write_text(json.dumps(record))
    folder = hub.save_pretrained(copy, tmp_path / "shared")
    assert not [file.name for file in folder.iterdir() if b"somebody" in file.read_bytes()]


def test_a_network_of_ones_own_is_built_again_by_name(tmp_path: Path) -> None:
    plain = torchvision.models.resnet18(num_classes=3)
    net = spnet.make_dynamic(plain, example=torch.randn(1, 3, 32, 32), exits=("layer2",), ignore="layer1.0", seed=0)
    with pytest.raises(UserError, match="add backbone="):
        hub.save_pretrained(net, tmp_path / "mine")
    folder = hub.save_pretrained(net, tmp_path / "mine", backbone="torchvision:resnet18")
    again, x = hub.from_pretrained(folder), torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x).logits, net.eval()(x).logits)
    with pytest.raises(UserError, match="another network"):
        hub.save_pretrained(net, tmp_path / "other", backbone="torchvision:resnet34")
    assert not (tmp_path / "other").exists()


def test_loading_imports_nothing_that_a_file_asks_for(trained: Path, tmp_path: Path, monkeypatch) -> None:
    folder = hub.save_pretrained(trained, tmp_path / "shared")
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**record, "backbone": "evil:network"}))
    with pytest.raises(UserError, match="import it first"):
        hub.from_pretrained(folder)


def test_a_run_folder_is_not_written_over(trained: Path) -> None:
    with pytest.raises(UserError, match="holds a run"):
        hub.save_pretrained(trained, trained)


def test_what_the_hub_cannot_give_is_one_line(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in ("nobody/nothing", "not a name!"):
        with pytest.raises(UserError, match="cannot be had from the Hub"):
            hub.from_pretrained(name, local_files_only=True)


def test_what_is_pushed_is_what_is_saved(trained: Path, tmp_path: Path, monkeypatch) -> None:
    asked = []

    def upload(repo_id: str, folder_path: str, token: str | None, commit_message: str) -> SimpleNamespace:
        asked.append((repo_id, {file.name for file in Path(folder_path).iterdir()}))
        return SimpleNamespace(commit_url="https://there/commit/1")

    library = SimpleNamespace(create_repo=lambda name, **how: asked.append((name, how)), upload_folder=upload)
    monkeypatch.setattr(hub, "_hub", lambda: library)
    assert hub.push_to_hub(trained, "me/digits", private=True) == "https://there/commit/1"
    assert asked == [("me/digits", {"private": True, "token": None, "exist_ok": True}), ("me/digits", FILES)]

    def refused(name: str, **how: object) -> None:
        raise OSError("401 Unauthorized\nlong story")

    library.create_repo = refused
    with pytest.raises(UserError, match=r"cannot upload to 'me/digits': 401 Unauthorized$"):
        hub.push_to_hub(trained, "me/digits")
