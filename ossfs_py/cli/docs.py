"""``ossfs-py docs``."""

import os
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

import click

from ossfs_py.cli.terminal import console, say
from ossfs_py.errors import UsageError

_WIDEST_COLUMNS = 110
"""A page fills the terminal up to here; longer lines are hard to read."""
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]+)\]\(([^)\s]+)\)")


def pages() -> dict[str, Traversable]:
    """Topic to page: the guide in the order of the alphabet, then the reference pages."""
    package = files("ossfs_py")
    found: dict[str, Traversable] = {}
    for directory in (package / "docs", package):
        names = sorted(page.name for page in directory.iterdir() if page.name.endswith(".md"))
        found |= {name.removesuffix(".md").lower(): directory / name for name in names}
    return found


@click.command(
    epilog="""\b
Examples:
  ossfs-py docs
  ossfs-py docs tuning
  ossfs-py docs options | grep cache
"""
)
@click.argument("topic", required=False)
def docs(topic: str | None) -> None:
    """Show the documentation page TOPIC; without TOPIC, list the pages."""
    found = pages()
    if topic is None:
        widest = max(map(len, found))
        for name, page in found.items():
            say(f"{name:<{widest}}  {_title(page)}")
        return
    wanted = found.get(topic.lower())
    if wanted is None:
        raise UsageError(f"there is no page {topic!r}; the pages are {', '.join(found)}")
    _show(wanted.read_text(encoding="utf-8"))


def _title(page: Traversable) -> str:
    with page.open(encoding="utf-8") as lines:
        return next(lines).lstrip("# ").rstrip()


def _show(text: str) -> None:
    """Show a page: laid out and paged in a terminal, as it is written anywhere else."""
    screen = console()
    if not screen.is_terminal:
        click.echo(text, nl=False)
        return
    from rich.markdown import Markdown

    text = _LINK.sub(_without_link, _COMMENT.sub("", text))
    # Without these options "less" shows the codes of colours, and waits at the end of short pages.
    os.environ.setdefault("LESS", "-FRX")
    with screen.pager(styles=True):
        page = Markdown(text, hyperlinks=False)
        screen.print(page, width=min(screen.width, _WIDEST_COLUMNS))


def _without_link(link: re.Match[str]) -> str:
    """A link as words: how to show the page that it leads to. Pictures are left out."""
    words, target = link.groups()
    if link[0].startswith("!"):
        return ""  # a picture
    if "://" in target:
        return link[0]
    topic = PurePosixPath(target.partition("#")[0]).stem.lower()
    return f"{words} (`ossfs-py docs {topic}`)" if topic in pages() else words
