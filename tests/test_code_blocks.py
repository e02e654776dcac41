"""What README and docs/ show is run: Python in the order of the page, commands that take a second; the others are read
by the command line's own parser. Links lead somewhere, lines fit a screen."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.distributed.run import get_args_parser

import spnet
from spnet.cli import VERBS, main, parser_of
from spnet.methods import find
from spnet.methods.base import Method

ROOT = Path(__file__).parent.parent
ARCHIVE = [ROOT / "docs" / name for name in ("archive.md", "tables.md")]
"""Generated tables, linked and not read."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted({*ROOT.glob("docs/*.md")} - {*ARCHIVE})]
CARDS = sorted(ROOT.glob("src/spnet/**/card.md"))
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUICK = {"list", "eval", "predict", "report"}
"""Verbs whose commands are run where they are about `runs/digits`, which is there ..."""
SLOW = {"--sweep", "--budget-ms"}
"""... but for these, which take seconds and are tested elsewhere."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with what the pages speak of: a finished run, a digit, a few photos."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(trained)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for kind in ("some_digit", "seven", *(f"photos/{part}/{c}/{i}" for part in ("train", "test") for c in ("cat", "dog")
                                          for i in range(4))):  # fmt: skip
        (tmp_path / f"{kind}.png").parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"{kind}.png")
    monkeypatch.chdir(tmp_path)
    before = {*find._below(Method)}
    yield tmp_path
    for made in {*find._below(Method)} - before:  # a page's own method stays its own
        del made.name  # type: ignore[misc]


def commands(block: str, of: str = "spnet") -> list[list[str]]:
    """The commands of a program in a block of shell, as words after its name; those of `spnet` under `torchrun` too."""
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    parts = [part for line in lines for part in re.split(r"\s&&\s|\s;\s", line)]
    words = [shlex.split(part, comments=True) for part in parts]
    under = [found[found.index("spnet") :] for found in words if found[:1] == ["torchrun"]] if of == "spnet" else []
    return [found[1:] for found in [*words, *under] if found[:1] == [of]]


def checked(command: list[str]) -> None:
    """The command line takes it: its verb, every option, and what they are given."""
    verb, *rest = command
    if verb.startswith("-"):
        assert main(command) == 0
        return
    assert verb in VERBS
    parser_of(verb, rest).parse_all(rest)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_blocks_run(page: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    for language, block in FENCED.findall(page.read_text("utf-8")):
        if language == "python":
            exec(compile(block, page.name, "exec"), names)
        for command in commands(block) if language == "bash" else []:
            checked(command)
            if command[0] == "list" or (command[0] in QUICK and command[1] == "runs/digits" and not SLOW & {*command}):
                assert main(command) == 0, command
    capsys.readouterr()


def test_the_commands_of_launchers_are_real() -> None:
    """Read by the parsers of torch and Ray: what they would start takes a cluster, or minutes."""
    launched = [block for _, block in FENCED.findall((ROOT / "docs" / "cluster.md").read_text("utf-8"))]
    of_torch = [words for block in launched for words in commands(block, "torchrun")]
    for words in of_torch:
        args = get_args_parser().parse_args(words)
        assert args.module and args.training_script == "spnet" and args.training_script_args[0] in VERBS
    of_ray = [words for block in launched for words in commands(block, "ray")]
    assert len(of_torch) == 2 and [verb for verb, *_ in of_ray] == ["start", "start", "stop"]
    ray = pytest.importorskip("ray.scripts.scripts").cli
    for verb, *options in of_ray:
        ray.commands[verb].make_context(verb, options)


@pytest.mark.parametrize("card", CARDS, ids=name_of)
def test_the_commands_of_a_card_are_real(card: Path, place: Path) -> None:
    found = [command for _, block in FENCED.findall(card.read_text("utf-8")) for command in commands(block)]
    assert found
    for command in found:
        checked(command)


def anchors(text: str) -> set[str]:
    """What links to headings of a page are called."""
    headings = re.findall(r"^#+ +(.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *ARCHIVE, *CARDS, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text("utf-8")), target


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=name_of)
def test_pages_fit_a_screen(page: Path) -> None:
    """At most 120 characters a line, 12 columns a table; a card is one screen."""
    lines = page.read_text("utf-8").splitlines()
    assert not [f"{n}: {len(line)} characters" for n, line in enumerate(lines, 1) if len(line) > 120]
    assert not [f"{n}: {line}" for n, line in enumerate(lines, 1) if line.startswith("|") and line.count("|") > 13]
    assert page not in CARDS or len(lines) <= (60 if "methods" in page.parts else 85)


def test_every_public_name_has_its_place_in_the_reference() -> None:
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert not [name for name in spnet.__all__ if f"spnet.{name}" not in text]
