"""The documentation site builds without a warning, and has a page for all that it is made of."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spnet
from spnet.methods import shipped_methods
from spnet.runs.open import shipped

ROOT = Path(__file__).parent.parent
pytest.importorskip("mkdocs", reason="the site needs the extra `docs`")
pytest.importorskip("material", reason="the site needs the extra `docs`")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_the_site_has_its_pages(site: Path) -> None:
    for page in ("getting-started", "your-network", "budgets", "deploy", "api", "faq", "glossary", "CONTRIBUTING"):
        assert (site / page / "index.html").is_file(), page
    for kind, names in (("cards", shipped_methods()), ("networks", shipped())):
        for name in names:
            assert (site / kind / name / "index.html").is_file(), name


@pytest.mark.slow
def test_the_reference_explains_every_public_name(site: Path) -> None:
    page = (site / "api" / "index.html").read_text("utf-8")
    for name in set(spnet.__all__) - {"__version__", "losses"}:
        assert f'id="spnet.{name}"' in page, name
    for name in spnet.losses.__all__:
        assert re.search(rf'id="spnet\.losses\.\w+\.{name}"', page), name
    assert "Raises:" in page and "Examples:" in page and "<blockquote>" not in page


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """Fonts, scripts and styles lie in the site."""
    page = (site / "index.html").read_text("utf-8")
    assert not re.findall(r'<(?:link|script|img)[^>]*(?:href|src)="https?://[^"]*\.(?:js|css|png|svg|woff2?)"', page)
