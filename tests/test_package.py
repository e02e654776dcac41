"""What is handed out: the wheel and the sdist hold what they should, and the wheel runs on its own."""

import os
import runpy
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

import spnet
from spnet.methods import shipped_methods
from spnet.runs.open import shipped

ROOT = Path(__file__).parent.parent
pytest.importorskip("hatchling", reason="building needs hatchling (extra `dev`)")


@pytest.fixture(scope="module")
def tools() -> dict[str, Callable]:
    return runpy.run_path(str(ROOT / "scripts" / "wheel.py"))


@pytest.fixture(scope="module")
def built(tools: dict[str, Callable], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tools["build"](tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_what_runs_and_nothing_else(built: tuple[Path, Path], tools: dict[str, Callable]) -> None:
    files = tools["content"](built[0])
    wanted = ["spnet/py.typed", "spnet/recipes/digits.py", "spnet/report/style.css", "spnet/report/script.js"]
    wanted += ["spnet/inference/export/run_stages.py"]
    wanted += [f"spnet/weights/{name}/{file}" for name in shipped() for file in ("model.safetensors", "card.md")]
    assert not [name for name in wanted if name not in files]
    cards = [name for name in files if name.startswith("spnet/methods/") and name.endswith("/card.md")]
    assert len(cards) == len(shipped_methods())
    assert {name.split("/")[0] for name in files} == {"spnet", f"spnet-{spnet.__version__}.dist-info"}
    assert built[0].stat().st_size < 10e6 and f"spnet-{spnet.__version__}" in tools["told"](built[0])


def test_the_sdist_holds_what_builds(built: tuple[Path, Path], tools: dict[str, Callable]) -> None:
    files = tools["content"](built[1])
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "src/spnet/py.typed"} <= {*files}
    assert not [name for name in files if name.split("/")[0] in ("tests", "results", "benchmarks", "docs")]


def test_the_version_is_one() -> None:
    cited = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {spnet.__version__}\n" in cited
    assert f"## {spnet.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_extras_are_said_where_one_installs() -> None:
    """Getting started names every extra of pyproject.toml."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "getting-started.md").read_text("utf-8")
    assert not [name for name in extras if f"`{name}`" not in page and f"[{name}]" not in page]


@pytest.mark.slow
def test_the_wheel_alone_runs_the_first_command(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In a fresh environment that has this one's libraries, but not this package; from an empty folder."""
    home, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(built[0])], check=True, cwd=empty)
    (packages,) = (home / "lib").glob("python*/site-packages")
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "libraries.pth").write_text("\n".join(libraries))  # without their own .pth files: no editable spnet
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def spnet_(*argv: str) -> str:
        command = [str(home / "bin" / "spnet"), *argv]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run([python, "-c", "import spnet; print(spnet.__file__)"], cwd=empty, env=environment,
                           capture_output=True, text=True).stdout  # fmt: skip
    assert Path(where.strip()).is_relative_to(home)
    assert "cifar10-fast" in spnet_("list", "pretrained")
    told = spnet_("train", "--backbone", "resnet8", "--epochs", "2", "--subset", "100", "--batch-size", "32",
                  "--validation", "0", "--threads", "1", "--out", "run")  # fmt: skip
    assert "test accuracy" in told and (empty / "run" / "report.html").is_file()
