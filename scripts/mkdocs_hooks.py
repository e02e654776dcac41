"""Hooks of the documentation site (mkdocs.yml): pages made of files that lie elsewhere, and the links to them.

The cards of methods and networks, the examples, CONTRIBUTING.md and CHANGELOG.md stay where they are; a link that leads
to one of them in the repository leads to its page on the site.
"""

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
NAME = re.compile(r'^    name = "(.+)"', re.MULTILINE)


def _method(card: Path) -> str:
    """What the method of a card is called: its folder is often, not always, named like it."""
    found = NAME.search(card.with_name("method.py").read_text("utf-8"))
    return found[1] if found else card.parent.name


CARDS = {
    "<!-- cards -->": {_method(path): path for path in sorted(ROOT.glob("src/spnet/methods/*/card.md"))},
    "<!-- networks -->": {path.parent.name: path for path in sorted(ROOT.glob("src/spnet/weights/*/card.md"))},
}
LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")


def _pages() -> dict[str, tuple[Path, str]]:
    """Page on the site -> the file it shows, and its text."""
    pages = {f"{name}.md": (ROOT / f"{name}.md", "") for name in ("CONTRIBUTING", "CHANGELOG")}
    for folder, cards in zip(("cards", "networks"), CARDS.values(), strict=True):
        pages |= {f"{folder}/{name}.md": (path, "") for name, path in cards.items()}
    pages = {page: (path, path.read_text("utf-8")) for page, (path, _) in pages.items()}
    for page, (path, text) in pages.items():
        if not text.startswith("#"):  # a method's card begins with its idea
            pages[page] = (path, f"# {Path(page).stem}\n\n{text}")
    for path in sorted(ROOT.glob("examples/*.py")):
        pages[f"examples/{path.stem}.md"] = (path, f"# {path.name}\n\n```python\n{path.read_text('utf-8')}```\n")
    return pages


PAGES = _pages()
PICTURES = {path.name: path for path in [ROOT / "benchmarks" / "results" / "shipped.svg"]}
"""File on the site -> what pages show of the records."""
PAGE_OF = {path.relative_to(ROOT).as_posix(): page for page, (path, _) in PAGES.items()}
PAGE_OF |= {path.relative_to(ROOT).as_posix(): name for name, path in PICTURES.items()}


def on_files(files: Files, config: Any) -> Files:
    for page, (_, text) in PAGES.items():
        files.append(File.generated(config, page, content=text))
    for name, path in PICTURES.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    here = page.file.src_uri
    source = PAGES[here][0].relative_to(ROOT).as_posix() if here in PAGES else f"docs/{here}"
    for mark, cards in CARDS.items():
        folder, head = ("cards", "method | idea") if mark == "<!-- cards -->" else ("networks", "network | what it is")
        rows = [f"| [{name}]({folder}/{name}.md) | {_idea(path)} |" for name, path in cards.items()]
        markdown = markdown.replace(mark, "\n".join([f"| {head} |", "|---|---|", *rows]))
    return LINK.sub(lambda link: _led(link, here, source), markdown)


def _idea(card: Path) -> str:
    """What a card says first, on one line."""
    paragraphs = card.read_text("utf-8").split("\n\n")
    return " ".join(next(text for text in paragraphs if not text.startswith("#")).split())


def _led(link: re.Match[str], here: str, source: str) -> str:
    """The link, from the page to the page of what the file links to."""
    begin, target, anchor, end = link.groups(default="")
    meant = normpath(f"{dirname(source)}/{target}") if dirname(source) else normpath(target)
    if meant in PAGE_OF:
        return f"{begin}{relpath(PAGE_OF[meant], dirname(here) or '.')}{anchor}{end}"
    if here in PAGES and meant.startswith("docs/"):
        return f"{begin}{relpath(meant.removeprefix('docs/'), dirname(here) or '.')}{anchor}{end}"
    return link.group()
