"""Methods from outside the package: entry points are imported when methods are listed; a broken one is one line."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spnet import UserError, create_model, list_methods
from spnet.cli import main
from spnet.methods import Method, Phase, find, method_class
from spnet.methods.static import Static

METHOD = """
from spnet.methods import Method, Phase
from spnet.methods.base import classification_loss
from spnet.network.sampling import AllRun

class Plain(Method):
    "Every block runs."
    name = "{name}"
    def phases(self, epochs):
        return [Phase("plain", epochs, classification_loss, AllRun())]
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package on the path: `install("toy_package", source)`, named in the group `spnet.methods`."""
    monkeypatch.syspath_prepend(tmp_path)
    find._import_all.cache_clear()

    def write(module: str, source: str, value: str = "") -> None:
        (tmp_path / f"{module}.py").write_text(source)
        facts = tmp_path / f"{module}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[spnet.methods]\n{module}-point = {value or module}\n")

    return write


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch):
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("plug_"):
            del sys.modules[name]
    find._import_all.cache_clear()
    find._say_taken.cache_clear()


@pytest.mark.parametrize("value", ["", "plug_good:Plain"])
def test_a_plug_in_is_found_and_built(value: str, install: Install, capsys: pytest.CaptureFixture[str]):
    install("plug_good", METHOD.format(name="plugged-in"), value)
    assert "plugged-in" in list_methods()
    assert not any(create_model("resnet8", "plugged-in").gated)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("source", ["import nothing_of_this_name", "def broken(:", "raise SystemExit(3)"])
def test_a_broken_plug_in_is_one_line_and_the_rest_goes_on(
    source: str, install: Install, capsys: pytest.CaptureFixture[str]
):
    install("plug_good", METHOD.format(name="plugged-in"))
    install("plug_broken", source)
    assert main(["list", "methods"]) == 0
    out, err = capsys.readouterr()
    assert "spnet  " in out and "plugged-in  " in out
    assert err.startswith("spnet: method plug-in 'plug_broken-point' of plug_broken (plug_broken) is left out")
    assert err.count("\n") == 1
    list_methods()
    assert capsys.readouterr().err == ""  # said once


def test_a_plug_in_whose_entry_names_nothing(install: Install, capsys: pytest.CaptureFixture[str]):
    install("plug_good", METHOD.format(name="plugged-in"), "plug_good:Lost")
    assert "spnet" in list_methods()
    assert "'plug_good-point' of plug_good (plug_good:Lost) is left out" in capsys.readouterr().err


def test_a_name_of_the_package_stays_the_packages(capsys: pytest.CaptureFixture[str]):
    class Other(Method):
        name = "static"

        def phases(self, epochs: int) -> list[Phase]:
            return []

    assert method_class("static") is Static and method_class("static") is Static
    assert capsys.readouterr().err.count("method 'static' of test_plugins is left out") == 1
    Other.name = "toy-other"  # the class lives on as long as the process does
    assert method_class("toy-other") is Other


def test_names_of_before_still_open():
    from spnet import routers
    from spnet.methods.gated import RateConfig, add_rate_terms  # noqa: F401
    from spnet.methods.skipnet import Recurrent, SkipNet, SkipNetConfig, SoftProbability  # noqa: F401

    assert routers.Recurrent is Recurrent
    for name in ("FeedForward", "PolicyNetwork", "Relational", "TwoLinears"):
        assert getattr(routers, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        routers.Nothing  # noqa: B018
    with pytest.raises(UserError, match="Did you mean 'skipnet'"):
        method_class("skipnett")
