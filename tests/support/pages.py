"""The Markdown pages of the project: their links, anchors and blocks of commands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
_FOLDERS = (".ci", ".github", "docker", "ossfs_py", "systemd", "tests")
_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the word after the fence, the mark behind it, and its lines."""

    language: str
    mark: str
    text: str


def every_page() -> list[Path]:
    """All Markdown files of the project."""
    found = [path for folder in _FOLDERS for path in (ROOT / folder).rglob("*.md")]
    return sorted([README, *found])


def name_of(page: Path) -> str:
    """A page's path inside the project."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = _FENCED.findall(page.read_text())
    return [Block(*fence.partition(" ")[::2], text) for fence, text in found]


def links(page: Path) -> Iterator[str]:
    """Where the links and pictures of a page lead to."""
    yield from _LINK.findall(_FENCED.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = _HEADING.findall(_FENCED.sub("", page.read_text()))
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings
    }
